"""A moment of a running sweep."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from b3dist.distributed.sweep.folder import SweepPlan
from b3dist.tuning.journal import TrialRecord


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    """What is done; counts over the sweep's whole life."""

    stage: str
    """One of `phases`."""
    phases: Sequence[str]
    """What the sweep goes through, in order."""
    trials: int
    complete: int
    pruned: int
    failed: int
    best: float | None
    """Highest macro F1 of a complete trial."""
    baseline: float | None
    done: int
    """Trainings of this stage, after the search."""
    total: int
    budget_left_s: float | None = None
    """Seconds in which trials may still begin; None: no limit."""

    @classmethod
    def of(
        cls,
        records: Sequence[TrialRecord],
        plan: SweepPlan,
        *,
        stage: str,
        done: int,
        total: int,
        budget_left_s: float | None = None,
    ) -> Self:
        """Progress as the study tells it."""
        states = Counter(record.state for record in records if not record.was_abandoned)
        values = [record.values[0] for record in records if record.state == "complete" and record.values]
        baselines = [record.values[0] for record in records if record.is_baseline and record.values]
        return cls(
            stage=stage,
            phases=plan.phases,
            trials=plan.trials,
            complete=states["complete"],
            pruned=states["pruned"],
            failed=states["failed"],
            best=max(values, default=None),
            baseline=baselines[0] if baselines else None,
            done=done,
            total=total,
            budget_left_s=budget_left_s,
        )

    @property
    def settled(self) -> int:
        """Trials that have ended."""
        return self.complete + self.pruned + self.failed
