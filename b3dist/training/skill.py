"""Is a prediction better than doing nothing, and is it too good to be true?

One asset in twenty passes a 5 % test by luck, so a fleet is judged by how many pass, not by those that do.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

SIGNIFICANCE = 0.05
SUSPICIOUS_IC = 0.5
"""A daily model of a liquid asset does not get here; a look-ahead error does."""


def judge_part(
    y_return: npt.NDArray[np.float64], return_pred: npt.NDArray[np.float64], *, horizon: int, ic: float | None
) -> dict[str, Any]:
    """Skill of the predicted returns of one part: (n,) fractions, ascending by session.

    Returns:
        p_value: one-sided, that squared errors are no smaller than persistence's (Diebold-Mariano; overlapping
        targets allowed for by horizon - 1 autocovariances and the factor of Harvey, Leybourne and Newbold 1997);
        None where undefined. beats_persistence: p_value below 0.05. suspicious: |IC| above 0.5, the sign of a leak.
    """
    return judge_gain(np.square(y_return) - np.square(y_return - return_pred), horizon=horizon, ic=ic)


def judge_gain(gain: npt.NDArray[np.float64], *, horizon: int, ic: float | None) -> dict[str, Any]:
    """The same from what the predictions gain on persistence per session: (n,) squared errors saved, ascending."""
    p_value = _diebold_mariano(gain, horizon)
    return {
        "p_value": p_value,
        "beats_persistence": p_value is not None and p_value < SIGNIFICANCE,
        "suspicious": ic is not None and abs(ic) > SUSPICIOUS_IC,
    }


def _diebold_mariano(gain: npt.NDArray[np.float64], horizon: int) -> float | None:
    """One-sided p-value that the mean of gain: (n,) is not above 0."""
    size = len(gain)
    if size < 10 * horizon:
        return None
    centred = gain - gain.mean()
    covariances = [float((centred[lag:] * centred[: size - lag]).sum()) / size for lag in range(horizon)]
    variance = (covariances[0] + 2.0 * sum(covariances[1:])) / size
    if variance <= 0:
        return None
    small_sample = math.sqrt((size + 1 - 2 * horizon + horizon * (horizon - 1) / size) / size)
    return float(norm.sf(small_sample * gain.mean() / math.sqrt(variance)))
