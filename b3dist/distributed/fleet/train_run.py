"""The Ray Train run of a fleet: how many workers, with which resources."""

import secrets
from pathlib import Path

from ray.train import FailureConfig, RunConfig, ScalingConfig

from b3dist.distributed.fleet.callback import ChargeDeadRanks
from b3dist.distributed.fleet.worker import WorkerSettings, work
from b3dist.distributed.lean_trainer import LeanTrainer


def make_trainer(
    settings: WorkerSettings,
    *,
    name: str,
    storage: Path,
    num_workers: int | tuple[int, int],
    gpus_per_worker: float,
    private_cluster: bool,
) -> "FleetTrainer":
    """A trainer whose `fit` runs the whole fleet.

    Args:
        settings: what the workers need.
        name: of the Train run; made unique here, since a name used before would silently resume.
        storage: folder for Ray Train's own bookkeeping.
        num_workers: how many, or least and most of an elastic group.
        gpus_per_worker: share of a GPU; 0 for CPUs.
        private_cluster: the cluster ends with this process and has no autoscaler.
    """
    resources = {"CPU": 1.0, "GPU": gpus_per_worker} if gpus_per_worker else {"CPU": 1.0}
    return FleetTrainer(
        work,
        train_loop_config={"settings": settings},
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=f"{name}-{secrets.token_hex(4)}",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=-1),
            callbacks=[ChargeDeadRanks(settings.coordinator)],
        ),
        private_cluster=private_cluster,
    )


class FleetTrainer(LeanTrainer):
    """Ray Train's trainer for independent workers.

    Not TorchTrainer: the workers share nothing, and a process group that nobody uses can still fail.
    """
