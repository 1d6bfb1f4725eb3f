"""What the driver of a fleet knows of its run, and whom it tells: progress, MLflow, summary.json."""

import time
from collections.abc import Callable
from typing import Any

from b3dist.distributed.assignments import Assignments
from b3dist.distributed.ledger import Event
from b3dist.distributed.summary import FleetProgress, summarise
from b3dist.errors import RunError, StorageError
from b3dist.run_folder import RunFolder
from b3dist.run_summary import FLEET, read_summary
from b3dist.tracking import Tracker


class FleetWatch:
    """What the driver knows of a run: replayed from the ledger, then followed by asking the coordinator."""

    def __init__(
        self,
        run: RunFolder,
        assignments: Assignments,
        *,
        started: float,
        on_progress: Callable[[FleetProgress], None] | None,
        how_to_resume: str,
    ) -> None:
        self._run = run
        self._remedy = f"resume with: {how_to_resume}"
        self._known = assignments
        self._started = started
        self._on_progress = on_progress
        self._tracker: Tracker | None = None
        self._tracking = told_mlflow(run)
        self._stopped: str | None = None
        self._storage_error: str | None = None

    @property
    def num_waiting(self) -> int:
        """Assets still to train."""
        return self._known.count("waiting") + self._known.count("leased")

    @property
    def is_tracked(self) -> bool:
        """Whether MLflow has the whole of a finished run."""
        return self._tracking is not None

    def track_with(self, tracker: Tracker) -> None:
        """Log what is trained already (a killed driver may not have), and from now on what gets trained."""
        self._tracker = tracker
        for event in self._known.events:
            self._log(event)

    def look(self, ray: Any, coordinator: Any) -> None:
        """Ask the coordinator what happened and pass it on."""
        try:
            progress = ray.get(coordinator.progress.remote(len(self._known.events)), timeout=30)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return  # restarting (it reads its state from the ledger), or the machine is very busy
        for event in progress.events:
            self._known.follow(event)
            self._log(event)
        self._stopped, self._storage_error = progress.stopped, progress.storage_error
        if progress.cannot_start is not None:  # Ray Train itself would try for ever
            raise RunError(
                f"run {self._run.run_id}: no worker could start: {progress.cannot_start}",
                hint=f"mend that (--debug shows the workers' output), then {self._remedy}",
            )
        if self._on_progress is not None:
            self._on_progress(FleetProgress.of(self._known, now=time.time()))

    def require_complete(self, fit_error: BaseException | None) -> None:
        """Raise if the workers ended with assets left to train."""
        if self._storage_error is not None:
            raise StorageError(self._storage_error, hint=f"free some space or make it writable, then {self._remedy}")
        if self._stopped is not None:
            raise RunError(f"run {self._run.run_id} stopped: {self._stopped}", hint=self._remedy)
        if self.num_waiting:
            cause = f": {type(fit_error).__name__}: {fit_error}" if fit_error else ""
            raise RunError(
                f"run {self._run.run_id}: the workers ended with {self.num_waiting} assets left{cause}",
                hint=self._remedy,
            ) from fit_error

    def end_tracking(self, state: str) -> None:
        """Wait until MLflow has everything, and end the parent run; only the first call does anything."""
        if self._tracker is None:
            return
        summary = summarise(self._run, self._known, state=state, started=self._started)
        result = self._tracker.finish(summary, "FINISHED" if state == "finished" else "KILLED")
        self._tracker = None
        self._tracking = {"logged_at": time.time(), **result.to_dict()}

    def finish(self, state: str) -> dict[str, Any]:
        """End tracking, write summary.json and return it."""
        self.end_tracking(state)
        summary = summarise(self._run, self._known, state=state, started=self._started)
        summary["tracking"] = self._tracking
        self._run.write_summary(summary)
        return summary

    def _log(self, event: Event) -> None:
        if self._tracker is None:
            return
        if event["event"] == "trained":
            self._tracker.log_asset(self._run.assets / event["ticker"])
        elif event["event"] == "failed":
            self._tracker.log_failure(event["ticker"], event["error"])


def told_mlflow(run: RunFolder) -> dict[str, Any] | None:
    """What summary.json says of MLflow, if an earlier driver finished the run and nothing was missing there."""
    try:
        summary = read_summary(run.path, run.settings.kind, FLEET) or {}
    except RunError:
        return None  # damaged: written again
    tracking: dict[str, Any] | None = summary.get("tracking")
    return tracking if tracking and summary.get("state") == "finished" and not tracking["not_logged"] else None
