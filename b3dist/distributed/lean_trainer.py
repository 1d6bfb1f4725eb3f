"""Ray Train's trainer without the helper processes that nobody here uses; it overrides private parts of Ray.

On two cores Ray Train's helpers cost more time than the workers' own start: each is a process that imports pandas and
Ray Data first (3 s of CPU each). Which of them are left out, and why that is safe, is said where it is done.
"""

from typing import Any

from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


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


class _WithoutAutoscaler(FixedScalingPolicy):  # type: ignore[misc]
    """A fixed number of workers, without registering them at an autoscaler that a private cluster does not have."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask for nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Ask for nothing."""

    def _cancel_resource_request(self) -> None:
        """Nothing was asked for."""
