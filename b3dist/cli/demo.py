"""`b3dist demo`: everything once, offline: simulate, ingest, retrain the fleet, report."""

import json
import math
import shlex
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from b3dist.cli.options import build_config
from b3dist.cli.output import DONE, SOME_ASSETS_FAILED, Answer, Debug, Json, answers
from b3dist.errors import ConfigError

if TYPE_CHECKING:
    from b3dist.config import Config
    from b3dist.data.lake import Lake

SIGNAL: Final = 0.3
"""Planted correlation with the 2-session return: far above any real one, so that the report shows learning."""
SEED: Final = 7


@answers
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for market, lake and runs; a former demo is reused.")] = (
        Path("demo")
    ),
    assets: Annotated[int, typer.Option("--assets", help="Number of simulated tickers.")] = 24,
    sessions: Annotated[int, typer.Option("--sessions", help="Their exchange sessions.")] = 1500,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Simulate a market, ingest it, retrain every asset and write the report, without network, in about two minutes."""
    from b3dist.report import write_report

    started = time.monotonic()
    lake = prepare_lake(out, assets=assets, sessions=sessions)
    summary, run_path = _retrain(lake, out / "runs", build_config("outcome"), debug=debug)
    _say("4/4 writing the report")
    report = write_report(out / "runs", summary["run_id"])
    totals = summary["totals"]
    found = mean_test_ic(run_path)
    payload = {
        "run_id": summary["run_id"],
        "report": str(report.resolve()),
        "path": str(run_path),
        **{name: totals[name] for name in ("trained", "skipped", "failed")},
        "planted_ic": SIGNAL,
        "mean_test_ic": found,
        "seconds": round(time.monotonic() - started, 1),
    }

    def show(console: Console) -> None:
        console.print(f"{totals['trained']} assets trained in {payload['seconds']:.0f} s, under {run_path}")
        if found is not None:
            console.print(f"Return forecasts for unseen sessions: IC {found:.2f} on average; {SIGNAL:.2f} was planted.")
        console.print(f"Open the report: {payload['report']}", soft_wrap=True)

    return Answer(payload=payload, show=show, exit_code=SOME_ASSETS_FAILED if totals["failed"] else DONE)


def prepare_lake(out: Path, *, assets: int, sessions: int) -> "Lake":
    """The demo's market and the lake made of it; with a former demo's files nothing is ingested twice.

    Raises:
        ConfigError: `out` holds a demo of another size.
    """
    from b3dist.data.lake import Lake, ingest
    from b3dist.data.simulator import simulate

    _require_same_demo(out / "market", assets=assets, sessions=sessions)
    _say(f"1/4 simulating {assets} assets x {sessions} sessions")
    simulate(out / "market", assets=assets, sessions=sessions, seed=SEED, signal=SIGNAL)
    _say("2/4 ingesting")
    ingest([out / "market"], out / "lake")
    return Lake(out / "lake")


def _require_same_demo(market: Path, *, assets: int, sessions: int) -> None:
    truth = market / "truth.json"
    if not truth.exists():
        return
    try:
        former = json.loads(truth.read_text(encoding="utf-8"))
        size = former["assets"], former["sessions"]
    except (ValueError, KeyError, TypeError):
        return  # no simulation: `simulate` says what is wrong with the folder
    if size != (assets, sessions):
        raise ConfigError(
            f"{market} holds a demo of {size[0]} assets x {size[1]} sessions, got {assets} x {sessions}",
            hint="name another folder with --out",
        )


def _retrain(lake: "Lake", runs: Path, config: "Config", *, debug: bool) -> tuple[dict[str, Any], Path]:
    """What `b3dist fleet` does; returns the run's summary and folder."""
    from b3dist.cli.fleet_progress import fleet_progress
    from b3dist.distributed.fleet import FleetOptions, drive_fleet
    from b3dist.distributed.selection import new_run

    run = new_run(lake, runs, config, tickers=None)
    _say(f"3/4 retraining every asset on Ray (run {run.run_id})")
    try:
        with fleet_progress() as show:
            return drive_fleet(run, FleetOptions(debug=debug), on_progress=show), run.path
    except KeyboardInterrupt:
        command = ["b3dist", "fleet", "--lake", str(lake.path), "--runs", str(runs), "--resume", run.run_id]
        raise KeyboardInterrupt(f"resume with: {shlex.join(command)}") from None


def mean_test_ic(run: Path) -> float | None:
    """Mean over a run's assets of the test part's information coefficient; None where no asset has one."""
    known = []
    for path in sorted((run / "assets").glob("*/metrics.json")):
        ic = json.loads(path.read_text(encoding="utf-8"))["test"]["return"]["ic"]
        if ic is not None and math.isfinite(ic):
            known.append(ic)
    return round(fmean(known), 4) if known else None


def _say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)
