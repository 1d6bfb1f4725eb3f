"""Tells the coordinator which workers died, as Ray Train sees it."""

from typing import Any

import ray
from ray.train import UserCallback


class ChargeDeadRanks(UserCallback):  # type: ignore[misc]  # Ray ships no type hints
    """Runs in Ray Train's controller; `after_exception` names only the ranks that died themselves.

    It is called before the group is torn down, so the others may still finish the asset they hold.
    """

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Charge what the dead ranks held, unless their node was taken away."""
        causes = {rank: _why(error) for rank, error in worker_exceptions.items() if not _is_preemption(error)}
        ray.get(self._coordinator.charge.remote(causes))


def _is_preemption(error: Exception) -> bool:
    cause = getattr(error, "health_check_failure", error)
    return isinstance(cause, ray.exceptions.RayActorError) and cause.preempted


def _why(error: Exception) -> str:
    cause = getattr(error, "health_check_failure", error)
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)[:300]
