"""A quadratic surface through the better trials: where a smooth objective should peak.

TPE draws candidates at random around good trials; in four dimensions and 60 trials it comes within 5 % of each range
of the best point in about 60 of 100 seeds. A surface through the same trials points at the peak (docs/decisions/0050).
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

Array = npt.NDArray[np.float64]

_RIDGE = 1e-3
"""Keeps coefficients small that the trials say nothing about."""


def num_trials_needed(num_dimensions: int) -> int:
    """Fewest trials a surface is fitted to: three more than it has coefficients."""
    return (num_dimensions + 1) * (num_dimensions + 2) // 2 + 3


def propose_peak(points: Array, values: Array) -> Array | None:
    """Where the surface through the better half of the trials is highest, within what its best third spans.

    Args:
        points: (trials, dimensions) in [0, 1].
        values: (trials,) to be maximised, finite.

    Returns:
        (dimensions,) in [0, 1]; None if there are too few trials.
    """
    num_trials, num_dimensions = points.shape
    needed = num_trials_needed(num_dimensions)
    if num_trials < needed:
        return None
    order = np.argsort(-values, kind="stable")[: max(needed, num_trials // 2)]
    points, values = points[order], values[order]
    spread = points.std(axis=0) + 1e-6
    scaled = (points - points[0]) / spread
    heights = (values - values.mean()) / (values.std() + 1e-12)
    terms = _terms(scaled)
    penalty = _RIDGE * len(scaled) * np.eye(terms.shape[1])
    penalty[0, 0] = 0.0
    coefficients = np.linalg.solve(terms.T @ terms + penalty, terms.T @ heights)
    best = scaled[: max(5, len(scaled) // 3)]
    low = np.maximum(best.min(axis=0), (0.0 - points[0]) / spread)
    high = np.minimum(best.max(axis=0), (1.0 - points[0]) / spread)
    ends = [
        minimize(lambda z: -float((_terms(z[None]) @ coefficients)[0]), begin, bounds=list(zip(low, high, strict=True)))
        for begin in (np.zeros(num_dimensions), (low + high) / 2)
    ]
    peak = min(ends, key=lambda end: float(end.fun)).x
    place: Array = np.clip(points[0] + peak * spread, 0.0, 1.0)
    return place


def _terms(points: Array) -> Array:
    """1, each coordinate, each product of two: (n, dimensions) -> (n, coefficients)."""
    rows, columns = np.triu_indices(points.shape[1])
    return np.column_stack([np.ones(len(points)), points, points[:, rows] * points[:, columns]])
