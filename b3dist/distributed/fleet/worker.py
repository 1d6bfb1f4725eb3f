"""What each long-lived Ray Train worker does: lease assets, train them end to end, report them, until none is left."""

import errno
import functools
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ray
import ray.train
from ray.train.collective import broadcast_from_rank_zero

from b3dist.config import Config
from b3dist.distributed.assignments import WorkerId
from b3dist.distributed.fleet.coordinator import Outcome
from b3dist.distributed.fleet.initial import WarmTrainer
from b3dist.distributed.fleet.outcomes import describe_bundle, describe_trained
from b3dist.errors import (
    InsufficientDataError,
    LakeError,
    SourceGoneError,
    StorageError,
    describe_error,
    describe_failure,
)

if TYPE_CHECKING:  # imported in the workers only: the driver must not pay seconds for torch and scikit-learn
    from b3dist.data.lake import Lake
    from b3dist.training.asset import TrainedAsset

TrainAsset = Callable[["Lake", str, Config, Path], "TrainedAsset"]
Train = Callable[[], "TrainedAsset"]
"""Commits one asset, or raises what went wrong with it."""


class Engine(Protocol):
    """How a worker trains the assets it leases."""

    @property
    def most(self) -> int:
        """How many assets to lease at once."""

    def train(self, tickers: Sequence[str]) -> Iterator[tuple[str, Train]]:
        """Each asset with what commits it, in any order."""


@dataclass(frozen=True)
class _SingleEngine:
    """One asset after another."""

    train_asset: Callable[[str], "TrainedAsset"]
    most: int = 1

    def train(self, tickers: Sequence[str]) -> Iterator[tuple[str, Train]]:
        for ticker in tickers:
            yield ticker, functools.partial(self.train_asset, ticker)


_STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What a worker needs to know; travels once, when the group starts."""

    coordinator: Any
    lake: Path
    lake_manifest_hash: str
    config: Config
    assets_dir: Path
    gpu_share: float = 0.0
    """Of a GPU, for this worker; 0 trains on the CPU."""
    stack: bool = False
    """Train packs of assets as one computation, not one asset after another."""
    train_asset: TrainAsset | None = None
    """None: b3dist.training.asset.train_asset. Anything but a `WarmTrainer` trains one asset after another."""

    @property
    def device(self) -> str:
        """Where this worker computes."""
        return "cuda" if self.gpu_share > 0 else "cpu"


def work(loop_config: Mapping[str, WorkerSettings]) -> None:
    """Train leased assets until none is left: the `train_loop_per_worker` of the fleet.

    Raises nothing for an asset that cannot be trained: one asset's error must not restart the worker group. Registers
    before anything else, so that a group that dies while it gets ready counts as a fruitless restart.
    """
    settings = loop_config["settings"]
    coordinator = settings.coordinator
    worker = _register(coordinator)
    engine = _get_ready(settings)
    try:
        while engine is not None and (tickers := ray.get(coordinator.lease.remote(worker, engine.most))):
            for ticker, train in engine.train(tickers):
                outcome = _conclude(train, settings.assets_dir / ticker)
                ray.get(coordinator.finish.remote(worker, ticker, outcome))
    except StorageError as error:
        ray.get(coordinator.report_storage_error.remote(error.message))
    except SourceGoneError as error:
        ray.get(coordinator.stop.remote(error.message))
    ray.train.report({"rank": worker.rank})


def _get_ready(settings: WorkerSettings) -> "Engine | None":
    """The engine on the run's lake; None after stopping the run, because another group would fare no better."""
    from b3dist.data.lake import Lake

    try:
        lake = Lake(settings.lake)
        if lake.manifest_hash != settings.lake_manifest_hash:
            raise LakeError(f"the lake {settings.lake} was changed while the run went on")
        return _load_engine(settings, lake)
    except Exception as error:  # noqa: BLE001  raising would start the whole group again, for ever
        ray.get(settings.coordinator.stop.remote(f"{describe_error(error)} (worker on {socket.gethostname()})"))
        return None


def _load_engine(settings: WorkerSettings, lake: "Lake") -> Engine:
    """What trains assets, with everything imported that the first one would otherwise wait for."""
    import torch

    from b3dist.training.asset import train_asset

    torch.set_num_threads(1)
    warm = settings.train_asset if isinstance(settings.train_asset, WarmTrainer) else None
    if settings.stack and (warm is not None or settings.train_asset is None):
        from b3dist.distributed.fleet.stack_engine import StackEngine

        return StackEngine(
            lake,
            settings.config,
            settings.assets_dir,
            device=settings.device,
            gpu_share=settings.gpu_share,
            initial_models=None if warm is None else warm.initial_models(),
        )
    train = settings.train_asset or functools.partial(train_asset, device=settings.device)
    return _SingleEngine(lambda ticker: train(lake, ticker, settings.config, settings.assets_dir))


def _register(coordinator: Any) -> WorkerId:
    """Agree on the attempt's number: rank 0 asks for it when the whole group is up, hence the old one gone."""
    context = ray.train.get_context()
    rank = context.get_world_rank()
    attempt = ray.get(coordinator.begin_attempt.remote(context.get_world_size())) if rank == 0 else None
    return WorkerId(broadcast_from_rank_zero(attempt), rank, os.getpid(), socket.gethostname())


def _conclude(train: Train, folder: Path) -> Outcome:
    """Train one asset, whose bundle will be `folder`, and say how it ended.

    Raises:
        StorageError, SourceGoneError: the run's folder cannot be written, or what its models start from is gone; true
            for every asset, so the run must stop.
    """
    try:
        return Outcome(trained=describe_trained(train()))
    except InsufficientDataError as error:
        return Outcome(skipped=error.message)
    except SourceGoneError:
        raise
    except StorageError:
        if folder.is_dir():  # a worker that was thought dead was faster
            return Outcome(trained=describe_bundle(folder))
        raise
    except OSError as error:
        if error.errno in _STORAGE_ERRNOS:
            raise StorageError(f"cannot write {error.filename or folder}: {error.strerror}") from error
        return Outcome(error=describe_failure(error))
    except Exception as error:  # noqa: BLE001  whatever one asset raises, the fleet goes on
        return Outcome(error=describe_failure(error))
