"""Reliability bins and return deciles against independent oracles."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from b3dist.report.calibration import reliability, return_groups


@pytest.mark.parametrize("num_bins", [1, 5, 10])
def test_reliability_equals_scikit_learn(num_bins: int) -> None:
    """Observed and mean predicted probabilities of every bin are those of calibration_curve."""
    rng = np.random.default_rng(3)
    probability = rng.beta(0.5, 0.5, 2000)
    probability[:4] = [0.0, 1.0, 0.2, 0.5]
    happened = rng.random(2000) < probability
    points = reliability(probability, happened, num_bins=num_bins)
    observed, predicted = calibration_curve(happened, probability, n_bins=num_bins)
    np.testing.assert_allclose([point.observed for point in points], observed, rtol=1e-12)
    np.testing.assert_allclose([point.predicted for point in points], predicted, rtol=1e-12)
    assert sum(point.num_windows for point in points) == 2000


def test_empty_bins_are_left_out() -> None:
    """A model that always says 0.95 has one point."""
    points = reliability(np.full(8, 0.95), np.arange(8) < 6)
    assert len(points) == 1
    assert points[0] == (pytest.approx(0.95), 0.75, 8)


def test_return_groups_are_deciles_of_the_prediction() -> None:
    """Groups are ordered by prediction, equal in size within one, and average the realised returns of their windows."""
    rng = np.random.default_rng(5)
    predicted, realised = rng.normal(0, 0.01, 103), rng.normal(0, 0.02, 103)
    groups = return_groups(predicted, realised)
    sizes = [group.num_windows for group in groups]
    assert len(groups) == 10
    assert (sum(sizes), max(sizes) - min(sizes)) == (103, 1)
    lowest = np.sort(predicted)[: sizes[0]]
    assert groups[0].predicted == pytest.approx(lowest.mean(), rel=1e-12)
    assert groups[0].realised == pytest.approx(realised[np.isin(predicted, lowest)].mean(), rel=1e-12)
    assert [group.predicted for group in groups] == sorted(group.predicted for group in groups)


def test_few_windows_make_few_groups() -> None:
    """Three windows are three groups of one, whose standard error is undefined; none are no group."""
    groups = return_groups(np.array([0.3, 0.1, 0.2]), np.array([3.0, 1.0, 2.0]))
    assert [(group.realised, group.standard_error) for group in groups] == [(1.0, None), (2.0, None), (3.0, None)]
    assert return_groups(np.array([]), np.array([])) == []
