"""`b3dist demo`: everything once, offline: simulate, ingest, retrain the fleet, report, release, score."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from b3dist.cli.options import build_config
from b3dist.cli.output import DONE, SOME_ASSETS_FAILED, Answer, Debug, Json, answers
from b3dist.errors import ConfigError

if TYPE_CHECKING:
    from b3dist.config import Config
    from b3dist.data.lake import Lake

SIGNAL: Final = 0.3
"""Planted correlation with the 2-session return: far above any real one, so that the report shows learning."""
NOTE: Final = f"Simulated market: a predictor with IC {SIGNAL:.2f} is planted; these are no real prices."
SEED: Final = 7
_LINES: Final = (
    ("IC of the return forecast", "ic", None, f"no skill; {SIGNAL:.2f} was planted"),
    ("RMSE of the return", "rmse", "persistence_rmse", "predict no change"),
    ("macro F1 of the action", "macro_f1", "majority_macro_f1", "most frequent action"),
    ("accuracy of the action", "accuracy", "majority_accuracy", "most frequent action"),
)
"""What is shown, its number in a row of the report, its baseline's, and what the baseline is."""


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
    """Simulate a market with a planted signal, ingest it, retrain, release and score every asset: two minutes, offline.

    The labels come from realised returns and the features are set v2 (recipe outcome), not the model card's. What is
    released was trained again on all rows (release create --refit).
    """
    from b3dist.report import write_report

    started = time.monotonic()
    lake = prepare_lake(out, assets=assets, sessions=sessions)
    summary, run_path = _retrain(lake, out / "runs", build_config("outcome"), debug=debug)
    _say("4/6 releasing them, trained again on all rows")
    release_id = _release(out, run_path)
    _say("5/6 scoring the newest session")
    scores = _score(out, lake)
    _say("6/6 writing the report")
    report = write_report(out / "runs", summary["run_id"])
    totals = summary["totals"]
    means = mean_test_numbers(run_path)
    payload = {
        "run_id": summary["run_id"],
        "report": str(report.resolve()),
        "path": str(run_path),
        "release_id": release_id,
        "scores": str(scores.resolve()),
        **{name: totals[name] for name in ("trained", "skipped", "failed")},
        "planted_ic": SIGNAL,
        "mean_test_ic": means["ic"],
        "mean_test": means,
        **{name: totals[name] for name in ("train_seconds", "wall_seconds")},
        "seconds": round(time.monotonic() - started, 1),
    }
    exit_code = SOME_ASSETS_FAILED if totals["failed"] else DONE
    return Answer(payload=payload, show=lambda console: show(console, payload), exit_code=exit_code)


def show(console: Console, payload: Mapping[str, Any]) -> None:
    """What was trained, how long it took, and the forecasts beside what costs nothing."""
    durations = {"training": "train_seconds", "fleet": "wall_seconds", "all": "seconds"}
    took = ", ".join(f"{name} {payload[key]:.0f} s" for name, key in durations.items())
    console.print(f"{payload['trained']} assets trained under {payload['path']} ({took})", soft_wrap=True)
    console.print(NOTE)
    table = Table(
        "mean over assets, test part",
        Column("model", justify="right"),
        Column("costs nothing", justify="right"),
        "",
        box=None,
    )
    for name, key, naive_key, naive in _LINES:
        naive_value = payload["mean_test"][naive_key] if naive_key else 0.0
        table.add_row(name, *(_text(value) for value in (payload["mean_test"][key], naive_value)), naive)
    console.print(table)
    console.print(
        f"Released as {payload['release_id']}; the newest session's scores: {payload['scores']}", soft_wrap=True
    )
    console.print(f"Open the report: {payload['report']}", soft_wrap=True)


def prepare_lake(out: Path, *, assets: int, sessions: int) -> "Lake":
    """The demo's market and the lake made of it; with a former demo's files nothing is ingested twice.

    Raises:
        ConfigError: `out` holds a demo of another size.
    """
    from b3dist.data.lake import Lake, ingest
    from b3dist.data.simulator import simulate

    _require_same_demo(out / "market", assets=assets, sessions=sessions)
    _say(f"1/6 simulating {assets} assets x {sessions} sessions")
    simulate(out / "market", assets=assets, sessions=sessions, seed=SEED, signal=SIGNAL)
    _say("2/6 ingesting")
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
    from b3dist.distributed.fleet.drive import drive_fleet
    from b3dist.distributed.fleet.options import FleetOptions
    from b3dist.distributed.selection import new_run
    from b3dist.report import write_note

    run = new_run(lake, runs, config, tickers=None)
    write_note(run.path, NOTE)
    _say(f"3/6 retraining every asset on Ray (run {run.run_id})")
    try:
        with fleet_progress() as show:
            return drive_fleet(run, FleetOptions(debug=debug), on_progress=show), run.path
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume with: {run.how_to_resume()}") from None


def _release(out: Path, run_path: Path) -> str:
    """What `b3dist release create --refit` and `promote` do; returns the release's id."""
    from b3dist.cli.refit_progress import refit_progress
    from b3dist.release import Refitting, ReleaseStore, create_release, promote
    from b3dist.run_folder import RunFolder

    store = ReleaseStore(out / "releases")
    with refit_progress(shown=True) as show:
        release = create_release(
            store, RunFolder.open(run_path.parent, run_path.name), refit=Refitting(on_progress=show)
        )
    promote(store, release.release_id)
    return release.release_id


def _score(out: Path, lake: "Lake") -> Path:
    """What `b3dist score` does with the champion; returns the file."""
    from b3dist.release import ReleaseStore
    from b3dist.scoring.bulk import score_day, write_scores

    path = out / "scores.parquet"
    write_scores(path, score_day(ReleaseStore(out / "releases").open("champion"), lake, as_of=None))
    return path


def mean_test_numbers(run: Path) -> dict[str, float | None]:
    """Means over a run's assets of the test part's numbers and their baselines; None where no asset has one."""
    from b3dist.report.overview import asset_row

    parts = [
        asset_row(path.parent.name, json.loads(path.read_text(encoding="utf-8")))["test"]
        for path in sorted((run / "assets").glob("*/metrics.json"))
    ]
    means: dict[str, float | None] = {}
    for key in (key for _, *keys, _ in _LINES for key in keys if key):
        known = [part[key] for part in parts if part[key] is not None and math.isfinite(part[key])]
        means[key] = round(fmean(known), 5) if known else None
    return means


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)
