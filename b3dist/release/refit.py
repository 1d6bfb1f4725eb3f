"""Refit a release's assets on all their rows, several processes side by side.

Each process trains one asset at a time on one thread, and every asset draws from a generator of its own: the weights
do not depend on how many processes there are.
"""

import contextlib
import dataclasses
import hashlib
import io
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.data.windows import BAR_COLUMNS, AssetData, Scaler
from b3dist.errors import DataError, ReleaseError, TrainingError
from b3dist.release.parts import AssetPart, keeps_start, refitted
from b3dist.training.bundle import serialise_weights
from b3dist.training.refit import prepare_whole, refit_asset
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.warm_start import InitialModel, InitialModels, basis_change, starting_state

Progress = Callable[[int, int], None]
"""Called with how many assets are done, and of how many."""

_lake: Lake | None = None
"""Of a worker process, opened once."""


@dataclass(frozen=True, kw_only=True)
class RefitResult:
    """The parts, and why some are as they were."""

    parts: list[AssetPart]
    """One whose start no epoch improved on is as it was: there is no training to repeat."""
    failed: Mapping[str, str]
    """Ticker -> why it is served by its evaluated weights."""
    lake_manifest_hash: str


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What a worker has to do: plain data, since tensors would travel through shared memory."""

    ticker: str
    config: Mapping[str, Any]
    learning_rates: Sequence[float]
    initial: InitialModel | None = None
    """Where a warm start begins, its weights apart."""
    initial_weights: bytes = b""


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """What comes back from a worker: plain data as well."""

    weights: bytes
    scaler: Scaler
    return_target: ReturnTarget
    anchor: date
    trained_until: date
    facts: dict[str, Any]


def refit_parts(
    parts: Sequence[AssetPart],
    lake: Path,
    *,
    workers: int | None = None,
    initial_models: InitialModels | None = None,
    on_progress: Progress = lambda _done, _total: None,
) -> RefitResult:
    """Train every part's asset again on all rows of a lake; its evaluated model stays beside the new one.

    The lake may have changed since the run: newer sessions are what a refit is for. An asset that cannot be refitted
    (gone from the lake, diverged, begun from a model that is gone) is served by its evaluated weights, and the result
    says why. One that kept the weights it began from has no epoch to repeat, and is served by them as well.

    Args:
        parts: of the run; carried-over ones stay as they are and do not belong here.
        lake: its folder.
        workers: processes, default one per core; the weights do not depend on it. 1: this process.
        initial_models: where warm-started assets began; their refit begins there too.
        on_progress: called after each asset.

    Raises:
        LakeError: there is no lake.
        ReleaseError: not one asset could be refitted, or the lake changed meanwhile.
    """
    opened = Lake(lake)
    to_train = [part for part in parts if not keeps_start(part.facts)]
    done = {part.ticker: part for part in parts if keeps_start(part.facts)}
    failed: dict[str, str] = {}
    on_progress(len(done), len(parts))
    tasks = [_task(part, initial_models) for part in to_train]
    for part, trained in _train_all(to_train, tasks, opened, workers or len(os.sched_getaffinity(0))):
        if isinstance(trained, str):
            failed[part.ticker] = trained
        done[part.ticker] = part if isinstance(trained, str) else _with(part, trained)
        on_progress(len(done), len(parts))
    if failed and len(failed) == len(to_train):
        ticker, reason = next(iter(failed.items()))
        raise ReleaseError(
            f"no asset could be refitted on {lake}; {ticker}: {reason}",
            hint="name the run's lake with --lake, or release without --refit",
        )
    return RefitResult(
        parts=[done[part.ticker] for part in parts], failed=failed, lake_manifest_hash=opened.manifest_hash
    )


def _train_all(
    parts: Sequence[AssetPart], tasks: Sequence[_Task | str], lake: Lake, workers: int
) -> Iterator[tuple[AssetPart, _Trained | str]]:
    """Each part with its model, or with the reason why there is none, as they come."""
    possible = [(part, task) for part, task in zip(parts, tasks, strict=True) if isinstance(task, _Task)]
    for part, task in zip(parts, tasks, strict=True):
        if isinstance(task, str):
            yield part, task
    if workers == 1 or len(possible) <= 1:
        for part, task in possible:
            yield part, _train(lake, task)
        return
    with _pool(lake, min(workers, len(possible))) as pool:
        running = {pool.submit(_work, lake.manifest_hash, task): part for part, task in possible}
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        except BrokenProcessPool as error:
            raise ReleaseError(
                "a process that refitted assets was killed, maybe for its memory; nothing was released",
                hint="run the command again, with fewer --workers",
            ) from error


def _task(part: AssetPart, initial_models: InitialModels | None) -> _Task | str:
    """What a worker has to do for a part, or why it cannot be done."""
    task = _Task(ticker=part.ticker, config=part.facts["config"], learning_rates=part.facts["learning_rates"])
    start = part.facts["initial_model"]
    if start is None:
        return task
    initial = initial_models(part.ticker) if initial_models is not None else None
    if initial is None or initial.model_sha256 != start["model_sha256"]:
        return f"the model it was started from ({start['origin']}) is gone or has changed"
    return dataclasses.replace(
        task, initial=dataclasses.replace(initial, state={}), initial_weights=serialise_weights(initial.state)
    )


@contextlib.contextmanager
def _pool(lake: Lake, workers: int) -> Iterator[Executor]:
    """Processes that end with this one, and at once when it is interrupted."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy torch's threads half
        initializer=_begin,
        initargs=(lake.path.resolve(),),
    )
    try:
        yield pool
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(lake: Path) -> None:
    """Open the lake in a new worker, and die with the parent, even if that is killed."""
    global _lake
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _lake = Lake(lake)


def _work(manifest_hash: str, task: _Task) -> _Trained | str:
    assert _lake is not None
    if _lake.manifest_hash != manifest_hash:
        raise ReleaseError(
            f"the lake {_lake.path} was changed while assets were refitted on it", hint="run the command again"
        )
    return _train(_lake, task)


def _train(lake: Lake, task: _Task) -> _Trained | str:
    """One refitted asset, or why there is none."""
    config = Config.from_dict(task.config)
    try:
        bars = lake.bars(task.ticker, BAR_COLUMNS)
        columns = {name: bars[name].to_numpy() for name in BAR_COLUMNS}
        data = prepare_whole(task.ticker, columns, lake.calendar(), config.data)
        refit = refit_asset(data, config, task.learning_rates, start=_start(lake, task, data, config))
    except (DataError, TrainingError) as error:
        return error.message
    return _Trained(
        weights=serialise_weights(refit.model.state_dict()),
        scaler=refit.scaler,
        return_target=refit.return_target,
        anchor=refit.anchor,
        trained_until=refit.anchor if task.initial is None else max(refit.anchor, task.initial.trained_until),
        facts={
            "lake_manifest_hash": lake.manifest_hash,
            "epochs": len(task.learning_rates),
            "num_train_windows": refit.num_train_windows,
            "train_loss": refit.train_loss,
        },
    )


def _start(lake: Lake, task: _Task, data: AssetData, config: Config) -> Mapping[str, torch.Tensor] | None:
    """The weights a warm start begins with, at this data's scales."""
    if task.initial is None:
        return None
    state = torch.load(io.BytesIO(task.initial_weights), weights_only=True)
    initial = dataclasses.replace(task.initial, state=state)
    target = ReturnTarget.fit(data.train.future_return, config.loss.return_unit)
    return starting_state(initial, data, target, basis=basis_change(lake, data, initial))


def _with(part: AssetPart, trained: _Trained) -> AssetPart:
    model = dataclasses.replace(
        part.evaluated,
        state=torch.load(io.BytesIO(trained.weights), weights_only=True),
        model_sha256=hashlib.sha256(trained.weights).hexdigest(),
        anchor=trained.anchor,
        trained_until=trained.trained_until,
        scaler=trained.scaler,
        return_target=trained.return_target,
    )
    return refitted(part, model, trained.facts)
