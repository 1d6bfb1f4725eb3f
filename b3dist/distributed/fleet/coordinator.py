"""The Ray actor on the driver's node that hands out assets: `Assignments` behind remote calls, and nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from b3dist.distributed.assignments import MAX_FRUITLESS_RESTARTS, Assignments, WorkerId
from b3dist.distributed.ledger import Event
from b3dist.errors import StorageError


@dataclass(frozen=True)
class Outcome:
    """How one asset ended in a worker: exactly one of the fields is set."""

    trained: Mapping[str, Any] | None = None
    skipped: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Progress:
    """What happened since the driver last asked."""

    events: Sequence[Event]
    stopped: str | None
    storage_error: str | None
    cannot_start: str | None
    """Why no worker of this invocation ever got as far as registering; None: one did, or it is too early to say."""


class Coordinator:
    """Serves one fleet run; calls arrive one at a time, so that no lock is needed.

    A full disk under the ledger does not kill it: it hands out nothing more and says so.
    """

    def __init__(self, tickers: Sequence[str], ledger_path: Path, assets_dir: Path) -> None:
        self._assignments = Assignments(tickers, ledger_path=ledger_path, assets_dir=assets_dir)
        self._storage_error: str | None = None
        self._deaths_before_any_group: list[str] = []

    def begin_attempt(self, num_workers: int) -> int:
        """Register a new worker group and return its number."""
        return self._guarded(lambda: self._assignments.begin_attempt(num_workers), self._assignments.attempt + 1)

    def lease(self, worker: WorkerId, most: int = 1) -> list[str]:
        """The next assets, at most so many; none if nothing is left."""
        if self._storage_error is not None:
            return []
        return self._guarded(lambda: self._assignments.lease_pack(worker, most), [])

    def finish(self, worker: WorkerId, ticker: str, outcome: Outcome) -> bool:
        """Settle a leased asset; False if the lease is no longer this worker's."""
        if outcome.trained is not None:
            trained = outcome.trained
            return self._guarded(lambda: self._assignments.record_trained(worker, ticker, trained), False)
        if outcome.skipped is not None:
            reason = outcome.skipped
            return self._guarded(lambda: self._assignments.record_skipped(worker, ticker, reason), False)
        error = outcome.error or "no outcome"
        return self._guarded(lambda: self._assignments.record_error(worker, ticker, error), False)

    def charge(self, causes: Mapping[int, str]) -> None:
        """Charge what the dead ranks held."""
        if self._assignments.is_fresh and causes:  # one death may be reported more than once
            self._deaths_before_any_group.append(next(iter(causes.values())))
        self._guarded(lambda: self._assignments.charge(causes), None)

    def stop(self, reason: str) -> None:
        """Hand out nothing more."""
        self._guarded(lambda: self._assignments.stop(reason), None)

    def report_storage_error(self, message: str) -> None:
        """A worker cannot write: stop handing out assets, for no other worker will fare better."""
        self._storage_error = self._storage_error or message

    def progress(self, since: int) -> Progress:
        """Every event from number `since` on (the driver has seen the ones before)."""
        deaths = self._deaths_before_any_group if self._assignments.is_fresh else []
        return Progress(
            self._assignments.events[since:],
            self._assignments.stopped,
            self._storage_error,
            deaths[-1] if len(deaths) > MAX_FRUITLESS_RESTARTS else None,
        )

    def _guarded[T](self, step: Callable[[], T], otherwise: T) -> T:
        try:
            return step()
        except StorageError as error:
            self._storage_error = error.message
            return otherwise


def start_coordinator(tickers: Sequence[str], *, ledger_path: Path, assets_dir: Path) -> Any:
    """Start the actor on this node and return its handle.

    It is restarted if it dies: everything it knows is in the ledger.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=0, scheduling_strategy=here)(Coordinator)
    return actor.remote(list(tickers), ledger_path, assets_dir)
