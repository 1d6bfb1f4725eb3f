"""The Ray Train run of a fleet: how many workers, which resources, and no helper processes that nobody uses.

On two cores Ray Train's helpers cost more time than the workers' own start: each is a process that imports pandas and
Ray Data first (3 s of CPU each). Which of them are left out, and why that is safe, is said where it is done.
"""

import secrets
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from b3dist.distributed.callback import ChargeDeadRanks
from b3dist.distributed.worker import WorkerSettings, work


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


class LeanTrainer(DataParallelTrainer):  # type: ignore[misc]  # Ray ships no type hints
    """Ray Train's trainer without the helper processes that nobody here uses."""

    def __init__(self, *args: Any, private_cluster: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._private_cluster = private_cluster

    def _create_default_callbacks(self) -> list[Any]:
        unused: tuple[type, ...] = (DatasetsCallback,)  # there are no Ray datasets
        if self._private_cluster:
            # Frees the placement group of a dead controller; here the whole cluster ends with the driver.
            unused += (PlacementGroupCleanerCallback,)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unused)]

    def _initialize_and_run_controller(self, **kwargs: Any) -> Any:
        if self._private_cluster and type(kwargs["scaling_policy"]) is FixedScalingPolicy:
            kwargs["scaling_policy"] = _WithoutAutoscaler(self.scaling_config)
        return super()._initialize_and_run_controller(**kwargs)


class FleetTrainer(LeanTrainer):
    """Ray Train's trainer for independent workers.

    Not TorchTrainer: the workers share nothing, and a process group that nobody uses can still fail.
    """


class _WithoutAutoscaler(FixedScalingPolicy):  # type: ignore[misc]
    """A fixed number of workers, without registering them at an autoscaler that a private cluster does not have."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask for nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Ask for nothing."""

    def _cancel_resource_request(self) -> None:
        """Nothing was asked for."""
