"""The quadratic surface: exact on a quadratic, inside what is known, silent with too few trials."""

import numpy as np

from b3dist.tuning.surface import num_trials_needed, propose_peak


def test_the_peak_of_a_quadratic_is_found() -> None:
    """With an interaction, from scattered trials, within the ridge's small pull."""
    rng = np.random.default_rng(0)
    peak = np.array([0.4, 0.55, 0.5])
    points = rng.uniform(0, 1, (60, 3))
    away = points - peak
    values = -np.square(away).sum(axis=1) - 0.4 * away[:, 0] * away[:, 1]
    proposed = propose_peak(points, values)
    assert proposed is not None
    assert np.abs(proposed - peak).max() < 0.02


def test_a_slope_is_followed_no_further_than_the_best_trials_reach() -> None:
    """A surface says nothing about where no trial was."""
    rng = np.random.default_rng(1)
    points = rng.uniform(0.2, 0.6, (40, 2))
    proposed = propose_peak(points, points.sum(axis=1))
    assert proposed is not None
    assert (proposed >= 0.2).all()
    assert (proposed <= 0.6).all()


def test_too_few_trials_make_no_surface() -> None:
    """Three more than its coefficients are needed: 18 in four dimensions."""
    assert num_trials_needed(4) == 18
    points = np.random.default_rng(2).uniform(0, 1, (17, 4))
    assert propose_peak(points, points[:, 0]) is None
