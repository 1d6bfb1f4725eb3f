"""Is the winner better than trial 0, and is it better than what costs nothing? Judged where no choice was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from b3dist.data.schema import ACTIONS
from b3dist.tuning.evidence import FEWEST_ASSETS, LEVEL, Interval, error_ratio_change, macro_f1_gain
from b3dist.tuning.scores import AssetScore, CohortScore, constant_scores, most_frequent_action, support_of
from b3dist.tuning.standings import Standing, describe_support, warn_of_support

Conclusion = Literal["better", "better than trial 0 only", "keep the defaults"]
KEEP: Final = "keep the defaults"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a sweep found something better than what it started from, and than what costs nothing.

    What costs nothing: always predicting the most frequent action, and a price that does not move.
    """

    adopted: bool
    """Better than trial 0: the one rule that decides what best.yaml holds."""
    reason: str
    """One sentence."""
    beats_constant: bool | None = None
    """Whether the winner is better than what costs nothing too; None if that was not compared."""
    gain: Interval | None = None
    """Of pooled macro F1, winner minus trial 0, on held-out assets' test parts."""
    error_change: Interval | None = None
    """Of the error ratio, likewise."""
    constant_gain: Interval | None = None
    """Of pooled macro F1, winner minus always the most frequent action."""
    constant_error_change: Interval | None = None
    """Of the error ratio, winner minus no change (1)."""
    constant_action: str | None = None
    constant_macro_f1: float | None = None
    """On the same windows, of always predicting that action."""
    standings: Sequence[Standing] = ()
    """Winner, trial 0, what costs nothing."""
    warnings: Sequence[str] = ()
    """Why the comparison may say less than it seems to."""

    @property
    def conclusion(self) -> Conclusion:
        """The outcome in a word."""
        if not self.adopted:
            return KEEP
        return "better" if self.beats_constant else "better than trial 0 only"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        intervals = ("gain", "error_change", "constant_gain", "constant_error_change")
        return {
            "adopted": self.adopted,
            "conclusion": self.conclusion,
            "reason": self.reason,
            "beats_constant": self.beats_constant,
            **{name: one.to_dict() if (one := getattr(self, name)) else None for name in intervals},
            "constant_action": self.constant_action,
            "constant_macro_f1": self.constant_macro_f1,
            "standings": [one.to_dict() for one in self.standings],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Comparison:
    """The winner against one other, in both scores."""

    gain: Interval
    change: Interval

    def is_better(self, *, two_objectives: bool) -> bool:
        """With two objectives: better in one, and not shown worse in the other."""
        if not two_objectives:
            return self.gain.low > 0
        return (self.gain.low > 0 or self.change.high < 0) and not (self.gain.high < 0 or self.change.low > 0)

    def is_worse(self, *, two_objectives: bool) -> bool:
        """Shown worse in what counts, and better in nothing that does."""
        if not two_objectives:
            return self.gain.high < 0
        return (self.gain.high < 0 or self.change.low > 0) and not (self.gain.low > 0 or self.change.high < 0)


def judge(
    winner: Sequence[AssetScore],
    baseline: Sequence[AssetScore],
    *,
    seed: int,
    two_objectives: bool,
    num_seeds: int = 1,
    name: str = "the winner",
) -> Verdict:
    """Whether the winner beats trial 0 on test parts that no choice has seen.

    With two objectives there are two chances to win, so each interval is wider (Bonferroni), and the other objective
    must not be shown worse. The same rule says whether it beats what costs nothing.

    Args:
        winner: one score per asset, summed over seeds.
        baseline: trial 0's, in the same order.
        seed: of the bootstrap.
        two_objectives: whether the return error decides as well; it is reported either way.
        num_seeds: how many trainings of an asset a score sums.
        name: of the winner, in tables and sentences.
    """
    if not baseline:
        return Verdict(adopted=False, reason=f"no assets to judge by, at least {FEWEST_ASSETS} are needed: {KEEP}")
    constant = constant_scores(baseline)
    action = ACTIONS[most_frequent_action(baseline)]
    standings = [
        Standing.of(called, scores, num_seeds=num_seeds)
        for called, scores in ((name, winner), ("trial 0", baseline), (f"always {action}, no change", constant))
    ]
    known: dict[str, Any] = {
        "constant_action": action,
        "constant_macro_f1": standings[-1].macro_f1,
        "standings": standings,
        "warnings": _warnings(winner, baseline, num_seeds=num_seeds),
    }
    if len(baseline) < FEWEST_ASSETS:
        few = f"only {len(baseline)} assets to judge by, at least {FEWEST_ASSETS} are needed: {KEEP}"
        return Verdict(adopted=False, reason=few, **known)
    level = 1.0 - (1.0 - LEVEL) / (2 if two_objectives else 1)
    start, free = (
        _Comparison(
            macro_f1_gain(winner, other, seed=seed, level=level),
            error_ratio_change(winner, other, seed=seed, level=level),
        )
        for other in (baseline, constant)
    )
    adopted = start.is_better(two_objectives=two_objectives)
    ending = _ending(free, action, two_objectives=two_objectives) if adopted else KEEP
    events = describe_support(support_of(baseline) / num_seeds)
    return Verdict(
        adopted=adopted,
        reason=f"{_numbers(standings[0], start, free, action)}, judged on {events} in the test parts of "
        f"{len(baseline)} assets ({100 * level:g} % intervals): {ending}",
        beats_constant=free.is_better(two_objectives=two_objectives),
        gain=start.gain,
        error_change=start.change,
        constant_gain=free.gain,
        constant_error_change=free.change,
        **known,
    )


def _ending(free: _Comparison, action: str, *, two_objectives: bool) -> str:
    if free.is_better(two_objectives=two_objectives):
        return "adopt the winner"
    what = f"always {action}{' and no change' if two_objectives else ''}"
    how = "worse" if free.is_worse(two_objectives=two_objectives) else "not shown to be better"
    return f"better than trial 0, yet {how} than {what}, which costs nothing; best.yaml holds it all the same"


def _numbers(winner: Standing, start: _Comparison, free: _Comparison, action: str) -> str:
    worse = " (worse)" if start.change.low > 0 else ""
    return (
        f"{winner.name}: macro F1 {winner.macro_f1:.4f}, {_said(start.gain)} against trial 0 and {_said(free.gain)} "
        f"against always {action}; return error ratio {winner.error_ratio:.4f}, {_said(start.change)} against trial 0"
        f"{worse}"
    )


def _said(interval: Interval) -> str:
    return f"{interval.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _warnings(winner: Sequence[AssetScore], baseline: Sequence[AssetScore], *, num_seeds: int) -> list[str]:
    warnings = []
    if rare := warn_of_support(baseline, num_seeds=num_seeds, where="the test parts judged on"):
        warnings.append(rare)
    if (support_of(winner) != support_of(baseline)).any():
        warnings.append(
            "the winner is judged on other windows or labels than trial 0 ("
            f"{describe_support(support_of(winner) / num_seeds)} against "
            f"{describe_support(support_of(baseline) / num_seeds)}): it answers another question"
        )
    return warnings


def keep_defaults(means: Mapping[int, CohortScore], *, baseline: int, num_seeds: int, two_objectives: bool) -> Verdict:
    """The verdict where no finalist beats trial 0 under fresh seeds: held-out assets are not even asked.

    Args:
        means: each finalist's mean validation score over the seeds, by trial number; trial 0's among them.
        baseline: trial 0's number.
        num_seeds: how many seeds.
        two_objectives: whether the return error decides as well.
    """
    floor = means[baseline]
    told = "; ".join(
        f"trial {number} {mean.macro_f1 - floor.macro_f1:+.4f} macro F1, "
        f"{mean.error_ratio - floor.error_ratio:+.4f} return error ratio"
        for number, mean in sorted(means.items())
        if number != baseline
    )
    seeds = f"over {num_seeds} fresh seed{'' if num_seeds == 1 else 's'} on the cohort's validation parts"
    if two_objectives and told:
        return Verdict(
            adopted=False,
            reason=f"no finalist is better than trial 0 in one objective without being worse in the other {seeds} "
            f"({told}): {KEEP}",
        )
    return Verdict(adopted=False, reason=f"no trial beats trial 0 {seeds}{f' ({told})' if told else ''}: {KEEP}")
