"""From trials to a winner: the best tried again, the baseline kept unless one is better under fresh seeds."""

from b3dist.tuning.finalists import choose_finalists, choose_winner, pareto_front
from b3dist.tuning.journal import State, TrialRecord
from b3dist.tuning.scores import CohortScore


def trial(number: int, *values: float, state: State = "complete") -> TrialRecord:
    return TrialRecord(
        number=number,
        state=state,
        params={"loss.gamma": float(number)},
        values=values or None,
        curve={},
        attributes={"baseline": True} if number == 0 else {},
    )


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
