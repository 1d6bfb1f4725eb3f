"""`b3dist runs list / status / prune`: what has been trained, and what is running."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from b3dist.cli.options import DEFAULT_RUNS, RunsOption
from b3dist.cli.output import Answer, Debug, Json, answers
from b3dist.cli.sweep_status import describe_trials, show_sweep, widen
from b3dist.errors import RunError

runs_app = typer.Typer(name="runs", no_args_is_help=True, help="What runs there are, what is running, and old ones.")

_LIST_COLUMNS = ("run_id", "kind", "state", "what")
_COLUMNS = ("run_id", "kind", "state", "assets", "trained", "skipped", "failed")
_ASSET_COLUMNS = ("ticker", "state", "seconds", "epochs", "kept", "accuracy", "macro_f1", "ic", "why")


def newest_run(runs: Path) -> str:
    """The id of the newest run in a folder.

    Raises:
        RunError: there is none.
    """
    from b3dist.distributed.run_list import list_runs

    found = list_runs(runs)
    if not found:
        raise RunError(f"there are no runs in {runs}", hint="name their folder with --runs, or start one: b3dist fleet")
    return found[0].run_id


@runs_app.command("list", epilog="Example: b3dist runs list --runs runs")
@answers
def list_(
    runs: RunsOption = DEFAULT_RUNS,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Every run, newest first."""
    from b3dist.distributed.run_list import list_runs

    found = [asdict(info) for info in list_runs(runs)]

    def show(console: Console) -> None:
        if found:
            widen(console)
            _show_table(console, [{**info, "what": _in_words(info)} for info in found], _LIST_COLUMNS)
        else:
            console.print(f"no runs in {runs}", markup=False)

    return Answer(payload={"runs": found}, show=show)


@runs_app.command("status", epilog="Example: b3dist runs status --runs runs")
@answers
def status(
    run_id: Annotated[str | None, typer.Argument(metavar="ID", help="The run (default: the newest).")] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """One run, asset by asset, or trial by trial; also while it is running."""
    from b3dist.distributed.run_list import run_status

    found = run_status(runs, newest_run(runs) if run_id is None else run_id)

    def show(console: Console) -> None:
        if found["kind"] == "sweep":
            show_sweep(console, found)
            return
        widen(console)
        _show_table(console, [found], _COLUMNS)
        rows = [
            {
                **entry,
                **(entry["metrics"] or {}),
                "kept": (entry["metrics"] or {}).get("best_epoch"),
                "why": entry["error"] or entry["reason"],
            }
            for entry in found["entries"]
        ]
        _show_table(console, rows, _ASSET_COLUMNS)

    return Answer(payload=found, show=show)


@runs_app.command("prune", epilog="Example: b3dist runs prune --keep 5 --runs runs")
@answers
def prune(
    keep: Annotated[int, typer.Option("--keep", help="How many of the newest runs to keep.")],
    runs: RunsOption = DEFAULT_RUNS,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Delete all but the newest runs; one that is running, or that an unfinished run starts from, is refused.

    A run's folder goes with all that is in it: models, predictions, ledger, report. What was made of it stays: releases
    (they hold copies), scores, checkpoints that an unfinished pooled run kept elsewhere with --storage, and MLflow's
    entries, by which nights are compared. Those hold hard links to the run's files, whose space is free only once the
    entries are deleted in MLflow too, followed by `mlflow gc`.
    """
    from b3dist.distributed.run_list import prune_runs

    pruned = prune_runs(runs, keep=keep)
    store = runs.resolve().parent / "mlflow.db"

    def show(console: Console) -> None:
        for run_id in pruned.deleted:
            console.print(f"deleted {run_id}")
        for run_id in pruned.running:
            console.print(f"refused {run_id}: it is running")
        for run_id in pruned.needed:
            console.print(f"refused {run_id}: a run that is not finished starts its models from it")
        console.print(f"{len(pruned.deleted)} deleted, {len(pruned.kept)} kept")
        if pruned.deleted and store.is_file():
            console.print(
                f"MLflow keeps its entries and their artifacts, see --help: {store}", markup=False, soft_wrap=True
            )

    return Answer(payload=asdict(pruned), show=show)


def _in_words(info: Mapping[str, Any]) -> str:
    """What a run amounts to."""
    if info["kind"] == "sweep":
        return describe_trials(info) + _verdict_in_words(info)
    if info["state"] == "damaged":
        return ""
    done = "judged under one model" if info["kind"] == "pooled" else "trained"
    parts = [f"{info['trained']} of {info['assets']} assets {done}"]
    return ", ".join(parts + [f"{info[name]} {name}" for name in ("skipped", "failed") if info[name]])


def _verdict_in_words(info: Mapping[str, Any]) -> str:
    if info["adopted"] is None:
        return "" if info["verdict"] is None else "; kept the defaults"
    return f"; adopted trial {info['adopted']}" + (f" ({info['conclusion']})" if info["conclusion"] else "")


def _show_table(console: Console, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in columns))
    console.print(table)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
