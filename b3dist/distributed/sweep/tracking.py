"""A sweep in MLflow: the sweep is the parent run, each trial a child."""

from typing import Any

from b3dist.distributed.fleet.options import FleetOptions
from b3dist.distributed.sweep.folder import KIND, SweepFolder
from b3dist.distributed.sweep.outcome import describe_trial
from b3dist.tracking import Tracker
from b3dist.tuning.journal import TrialRecord


class SweepTracking:
    """Tells MLflow each settled trial once; does nothing where tracking is off."""

    def __init__(self, sweep: SweepFolder, options: FleetOptions) -> None:
        self._sweep = sweep
        self._options = options
        self._tracker: Tracker | None = None
        self._told: set[int] = set()

    def open(self) -> None:
        """Open the store and the parent run.

        Raises:
            ConfigError: the store cannot be opened.
        """
        if not self._options.tracking:
            return
        settings, plan = self._sweep.run.settings, self._sweep.plan
        ranges = {one.name: f"{one.low:g}:{one.high:g}" for one in plan.space.dimensions}
        self._tracker = Tracker.open(
            self._options.tracking_uri,
            runs=self._sweep.run.path.parent,
            run_id=self._sweep.run.run_id,
            # Not how many trials: MLflow never lets a parameter change, and a sweep may grow.
            config={**settings.config.to_dict(), "search": ranges},
            kind=KIND,
            tags={"b3dist.lake_manifest_hash": settings.lake_manifest_hash, "b3dist.cohort": ",".join(plan.cohort)},
        )

    def log_trial(self, record: TrialRecord) -> None:
        """Log a settled trial; returns at once."""
        if self._tracker is None or record.number in self._told:
            return
        self._told.add(record.number)
        described = describe_trial(record)
        self._tracker.log_trial(
            record.number,
            params=record.params,
            metrics={
                name: value
                for name, value in (
                    ("val.macro_f1", record.attributes.get("macro_f1")),
                    ("val.error_ratio", record.attributes.get("error_ratio")),
                    ("epochs", record.attributes.get("epochs")),
                    ("seconds", record.attributes.get("seconds")),
                )
                if value is not None
            },
            curve=record.curve,
            tags={
                "b3dist.trial_state": record.state,
                "b3dist.baseline": str(record.is_baseline).lower(),
                "b3dist.source": str(described["source"]),
            },
            error=described["error"],
        )

    def finish(self, summary: dict[str, Any], state: str) -> dict[str, Any] | None:
        """Wait until MLflow has everything and end the parent run; what summary.json says of it."""
        if self._tracker is None:
            return None
        tracker, self._tracker = self._tracker, None
        return tracker.finish(summary, "FINISHED" if state == "finished" else "KILLED").to_dict()
