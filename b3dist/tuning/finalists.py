"""From trials to a winner: who is tried again under fresh seeds, and who wins then.

The best of 40 noisy trials looks better than it is. So the finalists are judged by seeds the search never saw, and the
winner on the test part of assets the search never saw (verdict.py).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from b3dist.tuning.journal import TrialRecord
from b3dist.tuning.scores import CohortScore


def baseline_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the starting values, if there is one."""
    return next((record for record in records if record.is_baseline and record.state == "complete"), None)


def pareto_front(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Complete trials that no other beats in macro F1 without losing in the error ratio; best macro F1 first."""
    ended = [(record, record.values) for record in records if record.state == "complete" and record.values]
    front = [
        record
        for record, (f1, ratio) in ended
        if not any(a >= f1 and b <= ratio and (a, b) != (f1, ratio) for _, (a, b) in ended)
    ]
    return sorted(front, key=lambda record: (-(record.values or (0.0,))[0], record.number))


def choose_finalists(records: Sequence[TrialRecord], *, most: int, two_objectives: bool) -> list[TrialRecord]:
    """The trials to try again, without the baseline: the best, or some spread evenly over the Pareto front."""
    others = [record for record in records if record.state == "complete" and not record.is_baseline and record.values]
    if two_objectives:
        front = [record for record in pareto_front(records) if not record.is_baseline]
        if len(front) <= most:
            return front
        return [front[round(place)] for place in np.linspace(0, len(front) - 1, most)]
    return sorted(others, key=lambda record: (-(record.values or (0.0,))[0], record.number))[:most]


def choose_winner(
    scores: Mapping[int, Sequence[CohortScore]], *, baseline: int, two_objectives: bool
) -> tuple[int, dict[int, CohortScore]]:
    """The candidate with the best mean over seeds, the baseline itself if none is better; and all means.

    With two objectives a candidate must be no worse than the baseline in either.

    Args:
        scores: a trial's validation scores, one per seed, by its number; the baseline's among them.
        baseline: its number.
        two_objectives: whether the error ratio counts.
    """
    means = {
        number: CohortScore(
            macro_f1=float(np.mean([score.macro_f1 for score in seeds])),
            error_ratio=float(np.mean([score.error_ratio for score in seeds])),
        )
        for number, seeds in scores.items()
    }
    floor = means[baseline]
    better = {
        number: mean
        for number, mean in means.items()
        if mean.macro_f1 > floor.macro_f1 and (not two_objectives or mean.error_ratio <= floor.error_ratio)
    }
    if two_objectives:
        better |= {
            number: mean
            for number, mean in means.items()
            if mean.error_ratio < floor.error_ratio and mean.macro_f1 >= floor.macro_f1
        }
    return max(better, key=lambda number: (better[number].macro_f1, -number), default=baseline), means
