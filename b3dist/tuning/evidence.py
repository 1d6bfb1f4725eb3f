"""Is a configuration better than another on assets that neither was chosen on? A paired bootstrap over assets.

Both configurations are judged on the same assets, and whole assets are drawn again: windows of an asset overlap and are
no independent evidence. Assets share a market, so the interval is still somewhat too narrow.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from b3dist.training.metrics import macro_f1_of
from b3dist.tuning.scores import AssetScore, CohortScore

FEWEST_ASSETS: Final = 6
"""Below so many assets an interval over assets says nothing."""
LEVEL: Final = 0.95
_DRAWS: Final = 10_000

Draws = npt.NDArray[np.int64]
"""(draws, assets): the numbers of the assets drawn."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A difference, challenger minus baseline, and where it lies at `level`."""

    difference: float
    low: float
    high: float
    level: float
    num_assets: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def macro_f1_gain(
    challenger: Sequence[AssetScore], baseline: Sequence[AssetScore], *, seed: int, level: float = LEVEL
) -> Interval:
    """Gain of pooled macro F1: one score per asset, in the same order; above 0 the challenger is better."""
    draws = _draw_assets(len(baseline), seed)
    gains = _macro_f1_of_draws(challenger, draws) - _macro_f1_of_draws(baseline, draws)
    gain = CohortScore.pooled(challenger).macro_f1 - CohortScore.pooled(baseline).macro_f1
    return _interval(gain, gains, len(baseline), level)


def error_ratio_change(
    challenger: Sequence[AssetScore], baseline: Sequence[AssetScore], *, seed: int, level: float = LEVEL
) -> Interval:
    """Change of the geometric mean error ratio: below 0 the challenger is better."""
    own, other = (
        np.log([1.0 if (ratio := score.error_ratio) is None else max(ratio, 1e-12) for score in scores])
        for scores in (challenger, baseline)
    )
    draws = _draw_assets(len(baseline), seed)
    changes = np.exp(own[draws].mean(axis=1)) - np.exp(other[draws].mean(axis=1))
    return _interval(float(np.exp(own.mean()) - np.exp(other.mean())), changes, len(baseline), level)


def _macro_f1_of_draws(scores: Sequence[AssetScore], draws: Draws) -> npt.NDArray[np.float64]:
    """Of each draw's summed confusion matrices: (draws,).

    As how often each asset was drawn times its matrix: picking the matrices out would take 0.3 GB for 400 assets.
    """
    rows = np.arange(len(draws))[:, None] * len(scores)
    times = np.bincount((draws + rows).ravel(), minlength=draws.size).reshape(draws.shape)
    matrices = np.stack([score.confusion for score in scores])
    sums = times.astype(np.float64) @ matrices.reshape(len(scores), -1)  # whole numbers: exact
    return macro_f1_of(sums.reshape(-1, *matrices.shape[1:]))


def _draw_assets(num_assets: int, seed: int) -> Draws:
    return np.random.default_rng(seed).integers(0, num_assets, (_DRAWS, num_assets))


def _interval(difference: float, draws: np.ndarray[Any, Any], num_assets: int, level: float) -> Interval:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(difference=difference, low=float(low), high=float(high), level=level, num_assets=num_assets)
