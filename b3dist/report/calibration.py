"""Whether probabilities and predicted returns mean what they say, as small tables ready to be drawn."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class ReliabilityPoint(NamedTuple):
    """One bin of a reliability diagram."""

    predicted: float
    """Mean predicted probability."""
    observed: float
    """Share of windows in which the action was the true one."""
    num_windows: int


class ReturnGroup(NamedTuple):
    """Windows of similar predicted return."""

    predicted: float
    """Mean predicted return, a fraction."""
    realised: float
    """Mean realised return, a fraction."""
    standard_error: float | None
    """Of the realised mean, taking windows as independent; None for a single window."""
    num_windows: int


def reliability(probability: Floats, happened: npt.NDArray[np.bool_], *, num_bins: int = 10) -> list[ReliabilityPoint]:
    """Predicted probability against observed frequency in bins of equal width; empty bins are left out.

    Args:
        probability: (n,) in [0, 1].
        happened: (n,) whether the action was the true one.
        num_bins: bins over [0, 1]; an edge belongs to the bin below it.
    """
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    bins = np.searchsorted(edges[1:-1], probability)
    count = np.bincount(bins, minlength=num_bins)
    predicted = np.bincount(bins, weights=probability, minlength=num_bins)
    observed = np.bincount(bins, weights=happened.astype(np.float64), minlength=num_bins)
    return [
        ReliabilityPoint(float(predicted[i] / count[i]), float(observed[i] / count[i]), int(count[i]))
        for i in np.flatnonzero(count)
    ]


def return_groups(predicted: Floats, realised: Floats, *, num_groups: int = 10) -> list[ReturnGroup]:
    """Realised returns by decile of the predicted return, lowest first.

    Equal predictions may fall on both sides of a border: they are ranked in order of time. Fewer windows than groups
    make fewer groups.

    Args:
        predicted: (n,) predicted returns, fractions.
        realised: (n,) realised returns, fractions.
        num_groups: 10 for deciles.
    """
    order = np.argsort(predicted, kind="stable")
    groups = [rows for rows in np.array_split(order, num_groups) if len(rows)]
    return [
        ReturnGroup(
            float(predicted[rows].mean()),
            float(realised[rows].mean()),
            float(realised[rows].std(ddof=1) / np.sqrt(len(rows))) if len(rows) > 1 else None,
            len(rows),
        )
        for rows in groups
    ]
