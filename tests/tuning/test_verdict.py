"""The verdict: trial 0 is kept unless it is beaten, and what costs nothing is held against whoever beats it."""

import numpy as np
import pytest

from b3dist.tuning.scores import AssetScore, CohortScore
from b3dist.tuning.verdict import judge, keep_defaults


def assets(hits: int, ratio: float, *, count: int = 12) -> list[AssetScore]:
    """As many assets, each with so many of 20 buys found, and their own small differences."""
    return [
        AssetScore(
            confusion=np.array([[hits + one % 3, 20 - hits - one % 3, 0], [5, 15, 0], [0, 0, 100 + one]]),
            squared_error=(ratio + 0.001 * (one % 4)) ** 2,
            naive_squared_error=1.0,
        )
        for one in range(count)
    ]


def called(buys: int, holds: int, *, events: int = 20, ratio: float = 1.0, count: int = 12) -> list[AssetScore]:
    """Assets of so many buys and 200 holds: so many of the buys found, so many of the holds called rightly."""
    return [
        AssetScore(
            confusion=np.array([[buys, 0, events - buys], [0, 0, 0], [200 - holds - one % 3, 0, holds + one % 3]]),
            squared_error=(ratio + 0.001 * (one % 4)) ** 2,
            naive_squared_error=1.0,
        )
        for one in range(count)
    ]


@pytest.mark.parametrize(
    ("hits", "ratio", "two", "adopted"),
    [
        (15, 1.0, False, True),  # clearly better
        (8, 1.0, False, False),  # the same
        (4, 1.0, False, False),  # worse
        (8, 0.9, True, True),  # better in the second objective alone
        (15, 1.1, True, False),  # better in one, shown worse in the other
        (15, 1.1, False, True),  # which does not count with a single objective
    ],
)
def test_the_verdict_follows_the_intervals(hits: int, ratio: float, two: bool, adopted: bool) -> None:
    """And says what to do."""
    verdict = judge(assets(hits, ratio), assets(8, 1.0), seed=0, two_objectives=two)
    assert verdict.adopted is adopted
    assert verdict.reason.endswith("keep the defaults") is not adopted
    assert "12 assets" in verdict.reason
    assert verdict.error_change is not None
    assert (verdict.error_change.level == 0.975) is two


def test_too_few_assets_mean_keep_the_defaults() -> None:
    """However good it looks."""
    verdict = judge(assets(20, 0.5, count=5), assets(1, 1.0, count=5), seed=0, two_objectives=False)
    assert not verdict.adopted
    assert "only 5 assets" in verdict.reason
    assert verdict.gain is None


def test_a_winner_that_is_worse_than_always_hold_says_so() -> None:
    """It beats a trial 0 that is worse still: best.yaml holds it, but nobody is told to adopt it."""
    verdict = judge(called(2, 150), called(2, 60), seed=0, two_objectives=False, num_seeds=2, name="trial 7")
    assert verdict.adopted
    assert verdict.beats_constant is False
    assert verdict.conclusion == "better than trial 0 only"
    assert verdict.gain is not None
    assert verdict.gain.low > 0
    assert verdict.constant_gain is not None
    assert verdict.constant_gain.high < 0
    assert "better than trial 0, yet worse than always hold" in verdict.reason
    assert "adopt" not in verdict.reason
    winner, start, free = verdict.standings
    assert (winner.name, start.name, free.name) == ("trial 7", "trial 0", "always hold, no change")
    assert free.macro_f1 == verdict.constant_macro_f1
    assert verdict.constant_gain.difference == pytest.approx(winner.macro_f1 - free.macro_f1)


def test_a_winner_that_only_draws_level_with_always_hold_is_not_called_better() -> None:
    """A few assets where it finds something, a few where it loses: the interval against the constant holds zero."""
    winner = [*called(6, 190, count=4), *called(0, 170, count=8)]
    verdict = judge(winner, called(2, 60), seed=0, two_objectives=False)
    assert verdict.constant_gain is not None
    assert verdict.constant_gain.low < 0 < verdict.constant_gain.high
    assert verdict.conclusion == "better than trial 0 only"
    assert "not shown to be better than always hold" in verdict.reason


def test_a_winner_better_than_both_is_adopted() -> None:
    """Then, and only then, the sentence says so."""
    verdict = judge(called(18, 195), called(2, 60), seed=0, two_objectives=False)
    assert verdict.conclusion == "better"
    assert verdict.reason.endswith("adopt the winner")


def test_a_worse_return_error_is_told_when_macro_f1_alone_decides() -> None:
    """With its interval, in the sentence as in the table."""
    verdict = judge(called(18, 195, ratio=1.02), called(2, 60, ratio=1.01), seed=0, two_objectives=False)
    assert verdict.adopted
    change = verdict.error_change
    assert change is not None
    assert change.low > 0
    assert f"{change.difference:+.4f} [{change.low:+.4f}, {change.high:+.4f}] against trial 0 (worse)" in verdict.reason
    assert verdict.standings[0].error_ratio > verdict.standings[1].error_ratio > verdict.standings[2].error_ratio == 1.0


def test_two_objectives_ask_both_of_what_costs_nothing() -> None:
    """A lower macro F1 than always hold's is made up by a return error shown lower, unless it is shown lower itself."""
    ahead = judge(called(18, 195, ratio=0.9), called(2, 60), seed=0, two_objectives=True)
    assert ahead.conclusion == "better"
    mixed = judge(called(18, 195, ratio=1.1), called(2, 60, ratio=1.2), seed=0, two_objectives=True)
    assert mixed.adopted
    assert mixed.conclusion == "better than trial 0 only"
    assert "always hold and no change" in mixed.reason


def test_events_are_counted_per_window_and_few_are_warned_of() -> None:
    """Not once per seed; an action that never came up is the rarest of all."""
    verdict = judge(called(2, 150, events=4), called(2, 60, events=4), seed=0, two_objectives=False, num_seeds=2)
    assert "judged on 24 buys, 0 sells, 1,200 holds" in verdict.reason
    (warning,) = verdict.warnings
    assert "fewer than 30 windows of buy and sell" in warning
    assert verdict.standings[1].true == {"buy": 24.0, "sell": 0.0, "hold": 1200.0}
    assert sum(verdict.standings[0].called.values()) == 1224.0
    assert judge(assets(8, 1.0), assets(8, 1.0), seed=0, two_objectives=False).warnings == []


def test_a_winner_with_other_labels_answers_another_question() -> None:
    """As a searched volatility multiple makes it."""
    verdict = judge(called(10, 150, events=30), called(10, 150, events=40), seed=0, two_objectives=False)
    assert any("another question" in one for one in verdict.warnings)


def test_too_few_assets_still_show_where_everyone_stands() -> None:
    """Without an interval; with none at all there is nothing to show."""
    few = judge(called(2, 150, count=3), called(2, 60, count=3), seed=0, two_objectives=False)
    assert [one.name for one in few.standings] == ["the winner", "trial 0", "always hold, no change"]
    assert few.conclusion == "keep the defaults"
    none = judge([], [], seed=0, two_objectives=False)
    assert none.reason.startswith("no assets to judge by")


def test_keeping_the_defaults_with_two_objectives_says_what_was_gained_and_lost() -> None:
    """A finalist that is better in one and worse in the other does not beat trial 0, and is no failure either."""
    means = {
        0: CohortScore(macro_f1=0.127, error_ratio=1.0075),
        7: CohortScore(macro_f1=0.278, error_ratio=1.021),
    }
    two = keep_defaults(means, baseline=0, num_seeds=2, two_objectives=True)
    assert "better than trial 0 in one objective without being worse in the other" in two.reason
    assert "trial 7 +0.1510 macro F1, +0.0135 return error ratio" in two.reason
    assert "no trial beats" not in two.reason
    alone = keep_defaults({0: means[0]}, baseline=0, num_seeds=1, two_objectives=False)
    assert "no trial beats trial 0 over 1 fresh seed on" in alone.reason
