"""From trials to a verdict: the best tried again, the baseline kept unless it is beaten where no choice was made."""

import numpy as np
import pytest

from b3dist.tuning.finalists import choose_finalists, choose_winner, judge, pareto_front
from b3dist.tuning.journal import State, TrialRecord
from b3dist.tuning.scores import AssetScore, CohortScore


def trial(number: int, *values: float, state: State = "complete") -> TrialRecord:
    return TrialRecord(
        number=number,
        state=state,
        params={"loss.gamma": float(number)},
        values=values or None,
        curve={},
        attributes={"baseline": True} if number == 0 else {},
    )


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


def test_the_best_complete_trials_are_tried_again() -> None:
    """Neither stopped ones nor the baseline, which is tried again anyway."""
    records = [
        trial(0, 0.9),
        trial(1, 0.5),
        trial(2, 0.8),
        trial(3, 0.99, state="pruned"),
        trial(4, 0.8),
        trial(5, 0.6),
    ]
    assert [one.number for one in choose_finalists(records, most=3, two_objectives=False)] == [2, 4, 5]
    assert choose_finalists(records[:1], most=3, two_objectives=False) == []


def test_the_pareto_front_holds_what_nothing_beats() -> None:
    """Higher macro F1 and a lower error ratio are better; finalists are spread over the front."""
    records = [trial(0, 0.5, 1.0), trial(1, 0.6, 1.1), trial(2, 0.4, 0.9), trial(3, 0.4, 1.0), trial(4, 0.55, 1.2)]
    assert [one.number for one in pareto_front(records)] == [1, 0, 2]
    many = [trial(0, 0.0, 9.0), *(trial(number, number / 10, 1 + number / 10) for number in range(1, 8))]
    assert [one.number for one in choose_finalists(many, most=3, two_objectives=True)] == [7, 4, 1]


def test_the_winner_has_the_best_mean_over_seeds() -> None:
    """One lucky seed does not win; without anything better the baseline does."""
    scores = {
        0: [CohortScore(macro_f1=0.50, error_ratio=1.0)] * 2,
        1: [CohortScore(macro_f1=0.70, error_ratio=1.0), CohortScore(macro_f1=0.40, error_ratio=1.0)],
        2: [CohortScore(macro_f1=0.58, error_ratio=1.1)] * 2,
    }
    assert choose_winner(scores, baseline=0, two_objectives=False)[0] == 2
    assert choose_winner(scores, baseline=0, two_objectives=True)[0] == 1
    assert choose_winner({0: scores[0]}, baseline=0, two_objectives=False)[0] == 0


def test_two_objectives_take_a_lower_error_at_equal_macro_f1() -> None:
    """A candidate must lose in neither."""
    scores = {0: [CohortScore(macro_f1=0.5, error_ratio=1.0)], 1: [CohortScore(macro_f1=0.5, error_ratio=0.9)]}
    assert choose_winner(scores, baseline=0, two_objectives=True)[0] == 1


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
    assert verdict.reason.endswith("adopt the winner" if adopted else "keep the defaults")
    assert "12 assets" in verdict.reason
    assert (verdict.error_change is not None) is two


def test_too_few_assets_mean_keep_the_defaults() -> None:
    """However good it looks."""
    verdict = judge(assets(20, 0.5, count=5), assets(1, 1.0, count=5), seed=0, two_objectives=False)
    assert not verdict.adopted
    assert "only 5 assets" in verdict.reason
    assert verdict.gain is None
