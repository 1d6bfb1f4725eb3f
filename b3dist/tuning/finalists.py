"""From trials to a verdict: who is tried again under fresh seeds, who wins, and whether that is enough.

The best of 40 noisy trials looks better than it is. So the finalists are judged by seeds the search never saw, and the
winner on the test part of assets the search never saw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from b3dist.tuning.evidence import FEWEST_ASSETS, LEVEL, Interval, error_ratio_change, macro_f1_gain
from b3dist.tuning.journal import TrialRecord
from b3dist.tuning.scores import AssetScore, CohortScore, constant_macro_f1


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a sweep found something better than what it started from."""

    adopted: bool
    reason: str
    """One sentence."""
    gain: Interval | None = None
    """Of pooled macro F1, winner minus trial 0, on held-out assets' test parts."""
    error_change: Interval | None = None
    """Of the error ratio; with two objectives only."""
    constant_macro_f1: float | None = None
    """On the same windows, of always predicting the most frequent action."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "adopted": self.adopted,
            "reason": self.reason,
            "gain": self.gain.to_dict() if self.gain else None,
            "error_change": self.error_change.to_dict() if self.error_change else None,
            "constant_macro_f1": self.constant_macro_f1,
        }


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


def judge(winner: Sequence[AssetScore], baseline: Sequence[AssetScore], *, seed: int, two_objectives: bool) -> Verdict:
    """Whether the winner beats trial 0 on test parts that no choice has seen: one score per asset, in the same order.

    With two objectives there are two chances to win, so each interval is wider (Bonferroni), and the other objective
    must not be shown worse.
    """
    if len(baseline) < FEWEST_ASSETS:
        return Verdict(
            adopted=False,
            reason=f"only {len(baseline)} assets to judge by, at least {FEWEST_ASSETS} are needed: keep the defaults",
        )
    level = 1.0 - (1.0 - LEVEL) / (2 if two_objectives else 1)
    gain = macro_f1_gain(winner, baseline, seed=seed, level=level)
    change = error_ratio_change(winner, baseline, seed=seed, level=level) if two_objectives else None
    constant = constant_macro_f1(baseline)
    said = (
        f"macro F1 {CohortScore.pooled(winner).macro_f1:.4f}, {gain.difference:+.4f} [{gain.low:+.4f}, "
        f"{gain.high:+.4f}] against trial 0"
    )
    wins, loses = gain.low > 0, gain.high < 0
    if change is not None:
        said += f", return error ratio {change.difference:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"
        wins, loses = wins or change.high < 0, loses or change.low > 0
    said += (
        f", on the test parts of {len(baseline)} assets ({100 * level:g} % interval); always the most frequent action"
    )
    said += f" scores {constant:.4f}"
    adopted = wins and not loses
    ending = "adopt the winner" if adopted else "keep the defaults"
    return Verdict(
        adopted=adopted,
        reason=f"{said}: {ending}",
        gain=gain,
        error_change=change,
        constant_macro_f1=constant,
    )
