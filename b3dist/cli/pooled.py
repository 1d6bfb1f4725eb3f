"""`b3dist pooled`: one model over all assets of a lake, data-parallel on Ray."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from b3dist.cli.fleet import Address, LakeOrStored, Mlflow, Resume, Tickers, TrackingUri
from b3dist.cli.options import (
    DEFAULT_LAKE,
    DEFAULT_RUNS,
    FromSession,
    Overrides,
    RecipeFile,
    RunsOption,
    Seed,
    ToSession,
    build_config,
    parse_tickers,
)
from b3dist.cli.output import DONE, SOME_ASSETS_FAILED, Answer, Debug, Json, answers
from b3dist.cli.time_left import clock
from b3dist.config import Config
from b3dist.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from b3dist.distributed.pooled.folder import Epochs
    from b3dist.distributed.pooled.move import Moved
    from b3dist.run_folder import RunFolder

_LINE_EVERY_S = 5.0


@answers
def pooled(
    lake: LakeOrStored = None,
    runs: RunsOption = DEFAULT_RUNS,
    tickers: Tickers = None,
    min_sessions: Annotated[int | None, typer.Option(help="Leave out shorter histories (default 250).")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that share each step (default: all cores).")
    ] = None,
    gpus_per_worker: Annotated[float, typer.Option("--gpus-per-worker", help="GPUs per worker; 0: CPUs.")] = 0.0,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="Folder or s3://BUCKET/FOLDER of the checkpoints (default: in the run's folder). Keys and server come "
            "from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL. With --resume: go on there, from the "
            "former checkpoints if they can be read, else from the start, e.g. --resume ID --storage /mnt/new.",
        ),
    ] = None,
    resume: Resume = None,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    mlflow: Mlflow = True,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Named configuration (default: pooled).")] = None,
    recipe_file: RecipeFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    from_session: FromSession = None,
    to_session: ToSession = None,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Train one model over all assets of a lake, data-parallel on Ray: one run, which can be resumed."""
    from b3dist.distributed.pooled.drive import PooledOptions, drive_pooled, require_trainable
    from b3dist.distributed.pooled.folder import finished_summary

    options = PooledOptions(
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        address=address,
        tracking=mlflow,
        tracking_uri=tracking_uri,
        debug=debug,
    )
    given = [tickers, recipe, recipe_file, overrides, seed, from_session, to_session, min_sessions]
    if resume is not None:
        run = _resumed(runs, resume, lake, unchanged=all(option is None for option in given))
        if (finished := finished_summary(run)) is not None:
            print(f"run {run.run_id} has already finished: nothing is started or written", file=sys.stderr)
            return _answer(run.path, finished)
        run = _stored(run, storage)
    else:
        config = build_config(
            recipe or "pooled",
            recipe_file=recipe_file,
            overrides=overrides,
            seed=seed,
            from_session=from_session,
            to_session=to_session,
            min_sessions=min_sessions,
        )
        require_trainable(config, options)
        run = _new(lake or DEFAULT_LAKE, runs, config, tickers=tickers, storage=storage)
    try:
        with _progress(run.settings.config.training.epochs) as show:
            summary = drive_pooled(run, options, on_progress=show)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume with: {run.how_to_resume(options.to_given())}") from None
    return _answer(run.path, summary)


def _new(lake: Path, runs: Path, config: Config, *, tickers: str | None, storage: str | None) -> "RunFolder":
    from b3dist.data.lake import Lake
    from b3dist.distributed.pooled.checkpoint_storage import check_storage
    from b3dist.distributed.pooled.folder import KIND, STORAGE_OPTION
    from b3dist.distributed.selection import new_run

    opened = Lake(lake)
    options = {}
    if storage is not None:
        options[STORAGE_OPTION] = _parse_storage(storage)
        check_storage(options[STORAGE_OPTION])
    return new_run(opened, runs, config, tickers=parse_tickers(tickers), kind=KIND, options=options)


def _resumed(runs: Path, run_id: str, lake: Path | None, *, unchanged: bool) -> "RunFolder":
    from b3dist.distributed.selection import reopen_lake
    from b3dist.run_folder import RunFolder

    if not unchanged:
        raise ConfigError(
            "--resume goes on with a run's own settings; others were given too",
            hint="leave them out to resume, or start a new run",
        )
    run = RunFolder.open(runs, run_id)
    reopen_lake(run, lake)
    return run


def _stored(run: "RunFolder", asked: str | None) -> "RunFolder":
    """The run with its checkpoints where they were, or where they are asked for now; says how far they reach."""
    from b3dist.distributed.pooled.checkpoint_copy import epochs_kept
    from b3dist.distributed.pooled.checkpoint_storage import check_storage
    from b3dist.distributed.pooled.folder import KIND, MODEL_FOLDER, STORAGE_OPTION, read_progress, storage_of
    from b3dist.distributed.pooled.move import move_checkpoints

    if run.settings.kind != KIND:
        return run  # drive_pooled says what is wrong
    storage = storage_of(run) if asked is None else _parse_storage(asked)
    if storage != storage_of(run):
        moved = move_checkpoints(run, storage)
        print(_move_in_words(moved, storage), file=sys.stderr, flush=True)
        return moved.run
    if STORAGE_OPTION in run.settings.options and not (run.path / MODEL_FOLDER).is_dir():  # else nothing is to train
        try:
            check_storage(storage)
            reach = epochs_kept(storage, run.run_id)
        except StorageError as error:
            elsewhere = f"or go on elsewhere: {run.how_to_resume()} --storage FOLDER"
            raise StorageError(error.message, hint=f"{error.hint}; {elsewhere}") from error
        if not reach and read_progress(run.path):
            print(
                f"there are no checkpoints of run {run.run_id} at {storage}: it begins anew at epoch 1, to the same "
                "numbers; if they lie elsewhere, interrupt it and name that place with --storage",
                file=sys.stderr,
                flush=True,
            )
    return run


def _move_in_words(moved: "Moved", storage: str) -> str:
    run_id = moved.run.run_id
    lost = (
        ""
        if moved.unread is None
        else f"the checkpoints of run {run_id} at {moved.former} cannot be read ({moved.unread}); "
    )
    if moved.epochs:
        return f"{lost}run {run_id} goes on from epoch {moved.epochs + 1}, with its checkpoints at {storage}"
    none = "" if lost else f"there are no checkpoints of run {run_id} at {moved.former}; "
    return f"{lost}{none}it begins anew at epoch 1, to the same numbers, with its checkpoints at {storage}"


def _parse_storage(storage: str) -> str:
    """An absolute path, or an address as it is."""
    if not storage.strip():  # would be the current folder
        raise ConfigError("--storage names no folder", hint="leave it out to keep checkpoints in the run's folder")
    if storage.startswith("file:///"):  # a folder has one name: by another one its checkpoints would seem to move
        storage = unquote(urlsplit(storage).path)
    return storage if "://" in storage else str(Path(storage).resolve())


@contextlib.contextmanager
def _progress(most_epochs: int) -> Iterator[Any]:
    """Yield what `drive_pooled` calls with all epochs so far: a bar on a terminal, a line now and then otherwise."""
    print("starting Ray (about 15 s)", file=sys.stderr, flush=True)
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _LinePrinter(most_epochs).show
        return
    columns = (TextColumn("pooled"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("pooled", total=most_epochs, detail="starting workers")
        yield lambda epochs: bar.update(
            task, completed=len(epochs), detail=_restarts(epochs) + _describe(epochs, most_epochs)
        )


class _LinePrinter:
    """Prints a line when an epoch was done, but not more often than every few seconds."""

    def __init__(self, most_epochs: int) -> None:
        self._most_epochs = most_epochs
        self._last_line = 0.0
        self._shown: Epochs = []

    def show(self, epochs: "Epochs") -> None:
        now = time.monotonic()
        restarted = bool(self._shown) and epochs[-1]["pid"] != self._shown[-1]["pid"]
        if restarted:
            print(f"pooled: restarted from epoch {_first_of_group(epochs)}", file=sys.stderr)
        elif len(epochs) == len(self._shown) or now - self._last_line < _LINE_EVERY_S:
            return
        self._last_line, self._shown = now, list(epochs)
        told = _describe(epochs, self._most_epochs)
        print(f"pooled: epoch {len(epochs)} of at most {self._most_epochs}: {told}", file=sys.stderr)


def _restarts(epochs: "Epochs") -> str:
    """Why a bar may have gone back."""
    first = _first_of_group(epochs)
    return f"restarted from epoch {first}, " if first > 1 else ""


def _first_of_group(epochs: "Epochs") -> int:
    """The first epoch that the present group of workers has trained, from 1."""
    return next(number for number, epoch in enumerate(epochs, start=1) if epoch["pid"] == epochs[-1]["pid"])


def _describe(epochs: "Epochs", most_epochs: int) -> str:
    last = epochs[-1]
    speed = last["num_train_windows"] / max(last["seconds"], 1e-9)
    left_s = sum(epoch["seconds"] for epoch in epochs) / len(epochs) * max(0, most_epochs - len(epochs))
    return f"validation loss {last['val_loss']:.4f}, {speed:,.0f} windows/s, at most {clock(left_s)} left"


def _answer(path: Path, summary: dict[str, Any]) -> Answer:
    totals = summary["totals"]
    names = ("trained", "skipped", "failed", "windows_trained", "train_seconds", "wall_seconds")
    payload = {
        "run_id": summary["run_id"],
        "path": str(path),
        "metrics": summary["metrics"],
        **{name: totals[name] for name in names},
        **summary["pooled"],
    }
    exit_code = SOME_ASSETS_FAILED if totals["failed"] else DONE
    return Answer(payload=payload, show=lambda console: _show(console, path, summary), exit_code=exit_code)


def _show(console: Console, path: Path, summary: dict[str, Any]) -> None:
    totals, metrics, speed = summary["totals"], summary["metrics"], summary["pooled"]
    left_out = totals["skipped"] + totals["already_skipped"] + totals["failed"]
    evaluated = f"{totals['trained'] + totals['already_done']} assets evaluated, {left_out} left out"
    title = f"{summary['run_id']}: {evaluated}, kept epoch {metrics['best_epoch']} of {metrics['epochs']}"
    table = Table(title=title, box=None)
    for heading in ("part", "metric", "model", "baseline"):
        table.add_column(heading, justify="left" if heading in ("part", "metric") else "right")
    for part in ("val", "test"):
        found = metrics[part]
        majority, persistence = found["baselines"]["majority"], found["baselines"]["persistence"]
        rows = [
            ("accuracy", found["accuracy"], majority["accuracy"]),
            ("macro F1", found["macro_f1"], majority["macro_f1"]),
            ("return RMSE", found["return"]["rmse"], persistence["return"]["rmse"]),
            ("return IC, mean over assets", found["mean_over_assets"]["ic"], None),
        ]
        for name, model, baseline in rows:
            table.add_row(part, name, *("-" if value is None else f"{value:.4f}" for value in (model, baseline)))
    console.print(table)
    console.print("baselines: most frequent action; predict no change")
    if speed["windows_per_s"]:
        share = f"{speed['all_reduce_share']:.0%} of it exchanging gradients"
        console.print(f"{speed['windows_per_s']:,.0f} windows/s with {speed['workers']} workers, {share}")
    for entry in summary["assets"]:
        if entry["state"] == "failed":
            console.print(f"{entry['ticker']} failed: {entry['error']}", markup=False, soft_wrap=True)
    console.print(str(path), markup=False, soft_wrap=True)
