"""All runs in a folder: what there is, what is running, and deleting the old ones."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from b3dist.distributed.assignments import Assignments
from b3dist.distributed.fleet.initial import InitialSource
from b3dist.distributed.summary import asset_entries
from b3dist.distributed.sweep.folder import KIND as SWEEP
from b3dist.distributed.sweep.status import sweep_counts, sweep_status
from b3dist.errors import B3distError, ConfigError, RunError
from b3dist.run_folder import RunFolder, RunState, is_driven, read_run_config


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One line of `runs list`; counts are over the whole life of the run.

    Of a sweep, `trained`, `skipped` and `failed` count trials: complete, stopped early, failed.
    """

    run_id: str
    kind: str
    state: RunState
    created_at: str
    assets: int
    trained: int
    skipped: int
    failed: int
    path: str
    trials: int | None = None
    """Trials asked for, of a sweep."""
    verdict: str | None = None
    """Of a sweep that has ended."""
    adopted: int | None = None
    """The trial in a sweep's best.yaml; None: it holds what the sweep started from."""
    conclusion: str | None = None
    """The verdict in a few words."""
    stopped: str | None = None
    """Why a sweep came to its verdict before all trials asked for, if it did."""


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What `prune_runs` did, run ids."""

    deleted: Sequence[str]
    kept: Sequence[str]
    running: Sequence[str]
    """Among the kept: too old to keep, but running."""
    needed: Sequence[str] = ()
    """Among the kept: too old to keep, but an unfinished run starts its models from it."""


def list_runs(runs: Path) -> list[RunInfo]:
    """Every run in a folder, newest first; folders that are no runs are ignored, damaged runs say so."""
    if not runs.is_dir():
        return []
    folders = sorted((entry for entry in runs.iterdir() if entry.is_dir()), key=lambda entry: entry.name, reverse=True)
    found = []
    for folder in folders:
        if folder.name.startswith("."):
            continue
        try:
            if read_run_config(folder):
                found.append(_info(folder))
        except B3distError:
            found.append(_damaged(folder))
    return found


def run_status(runs: Path, run_id: str) -> dict[str, Any]:
    """One run: its line of `list_runs`, and every asset with what became of it, read from the ledger.

    Raises:
        RunError: no such run, or damaged.
    """
    run = RunFolder.open(runs, run_id)
    if run.settings.kind == SWEEP:
        with _called_damage(run.path):
            return {**vars(_info(run.path)), **sweep_status(run)}
    return {**vars(_info(run.path)), "entries": asset_entries(run, _replay(run))}


def prune_runs(runs: Path, *, keep: int) -> Pruned:
    """Delete all but the newest runs; one that is running, damaged or needed by an unfinished run is never deleted.

    A run is renamed before it is deleted, so that an interrupted deletion leaves no half run behind.

    Raises:
        ConfigError: a negative number to keep.
    """
    if keep < 0:
        raise ConfigError(f"the number of runs to keep must be at least 0, got {keep}", hint="--keep 5")
    for remains in runs.glob(".*.deleted"):
        shutil.rmtree(remains, ignore_errors=True)
    known = list_runs(runs)
    deleted: list[str] = []
    running: list[str] = []
    needed: list[str] = []
    sources: set[Path] = set()
    for number, info in enumerate(known):  # newest first: a source is older than what starts from it
        if info.state == "damaged":
            continue
        run = RunFolder.open(runs, info.run_id)
        if number >= keep and run.path in sources:
            needed.append(info.run_id)
        if number < keep or run.path in sources:
            sources |= _sources(run, info)
            continue
        try:
            with run.driven():
                grave = run.path.rename(run.path.with_name(f".{run.run_id}.deleted"))
        except RunError:
            running.append(info.run_id)
            sources |= _sources(run, info)
            continue
        shutil.rmtree(grave)
        deleted.append(info.run_id)
    kept = [info.run_id for info in known if info.run_id not in deleted]
    return Pruned(deleted=deleted, kept=kept, running=running, needed=needed)


def _sources(run: RunFolder, info: RunInfo) -> set[Path]:
    """The run that an unfinished run's models start from, if any and if its config.json still says so."""
    try:
        source = InitialSource.of_run(run) if info.state != "finished" else None
    except RunError:
        return set()
    return set() if source is None else {source.path}


def _info(folder: Path) -> RunInfo:
    run = RunFolder.open(folder.parent, folder.name)
    if run.settings.kind == SWEEP:
        return _sweep_info(run)
    assignments = _replay(run)
    left = assignments.count("waiting") + assignments.count("leased")
    state: RunState = "running" if is_driven(folder) else "interrupted" if left else "finished"
    return RunInfo(
        run_id=run.run_id,
        kind=run.settings.kind,
        state=state,
        created_at=run.settings.created_at,
        assets=len(assignments.assets),
        trained=assignments.count("trained"),
        skipped=assignments.count("skipped"),
        failed=assignments.count("failed"),
        path=str(run.path),
    )


def _sweep_info(run: RunFolder) -> RunInfo:
    with _called_damage(run.path):
        counts, finished, verdict, adopted, conclusion, stopped = sweep_counts(run)
    return RunInfo(
        run_id=run.run_id,
        kind=run.settings.kind,
        state="running" if is_driven(run.path) else "finished" if finished else "interrupted",
        created_at=run.settings.created_at,
        assets=len(run.settings.tickers),
        trained=counts["complete"],
        skipped=counts["pruned"],
        failed=counts["failed"],
        path=str(run.path),
        trials=counts["planned"],
        verdict=verdict,
        adopted=adopted,
        conclusion=conclusion,
        stopped=stopped,
    )


@contextlib.contextmanager
def _called_damage(path: Path) -> Iterator[None]:
    """What a sweep's ledger or summary raises when it holds something else than it should, said as such."""
    try:
        yield
    except B3distError:  # some are ValueErrors, and say it themselves
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"the ledger or summary.json in {path} is damaged: {error!r}") from error


def _damaged(folder: Path) -> RunInfo:
    return RunInfo(
        run_id=folder.name,
        kind="",
        state="damaged",
        created_at="",
        assets=0,
        trained=0,
        skipped=0,
        failed=0,
        path=str(folder),
    )


def _replay(run: RunFolder) -> Assignments:
    return Assignments(run.settings.tickers, ledger_path=run.ledger, assets_dir=run.assets, writing=False)
