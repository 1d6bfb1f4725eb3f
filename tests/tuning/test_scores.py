"""A cohort's score: confusion matrices summed, errors relative to persistence, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from b3dist.training.metrics import macro_f1_of
from b3dist.tuning.scores import AssetScore, CohortScore, constant_scores


def score(confusion: list[list[int]], ratio: float = 1.0) -> AssetScore:
    return AssetScore(
        confusion=np.array(confusion, dtype=np.int64), squared_error=ratio**2 * 0.3, naive_squared_error=0.3
    )


def test_macro_f1_of_a_confusion_matrix_is_scikit_learns() -> None:
    """Also where a class is absent from truth and prediction, in one call for many matrices."""
    rng = np.random.default_rng(0)
    matrices, expected = [], []
    for absent in (None, 0, 1, 2):
        truth, predicted = rng.integers(0, 3, (2, 200))
        if absent is not None:
            truth[truth == absent] = predicted[predicted == absent] = (absent + 1) % 3
        matrices.append(np.bincount(truth * 3 + predicted, minlength=9).reshape(3, 3))
        expected.append(f1_score(truth, predicted, average="macro", zero_division=0))
    assert macro_f1_of(np.stack(matrices)) == pytest.approx(expected, abs=1e-12)


def test_assets_are_pooled_before_macro_f1_is_taken() -> None:
    """An asset without a single buy counts by its windows, not by a score of its own."""
    all_hold = score([[0, 0, 0], [0, 0, 0], [0, 0, 90]])
    mixed = score([[5, 0, 5], [0, 5, 5], [0, 0, 10]])
    pooled = CohortScore.pooled([all_hold, mixed])
    assert pooled.macro_f1 == pytest.approx(float(macro_f1_of(all_hold.confusion + mixed.confusion)))
    assert pooled.macro_f1 != pytest.approx((all_hold.macro_f1 + mixed.macro_f1) / 2)


def test_the_error_ratio_is_a_geometric_mean_and_ignores_standing_prices() -> None:
    """Twice and half as good as persistence cancel; an asset that never moved has no ratio."""
    still = AssetScore(confusion=np.eye(3, dtype=np.int64), squared_error=0.1, naive_squared_error=0.0)
    hit = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert still.error_ratio is None
    assert CohortScore.pooled([score(hit, 2.0), score(hit, 0.5), still]).error_ratio == pytest.approx(1.0)


def test_a_score_survives_the_ledger() -> None:
    """to_dict and from_dict give the same numbers, bit for bit."""
    one = score([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 1 / 3)
    again = AssetScore.from_dict(one.to_dict())
    assert np.array_equal(one.confusion, again.confusion)
    assert one.squared_error == again.squared_error


def test_what_costs_nothing_is_the_best_constant() -> None:
    """Always hold, on parts that hold all three actions: a third of hold's own F1."""
    mixed = score([[5, 0, 5], [0, 5, 5], [0, 0, 80]])
    free = CohortScore.pooled(constant_scores([mixed, mixed]))
    assert free.macro_f1 == pytest.approx(2 * 80 / (80 + 100) / 3)
    assert free.error_ratio == 1.0
