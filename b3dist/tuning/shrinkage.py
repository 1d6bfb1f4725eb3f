"""Best parameters per asset, from one sweep: each asset's own scores, shrunk to the cohort's when its evidence is thin.

Asset a scores y[t, a] under trial t. What is the asset's own, beyond its level and the trial's effect on the whole
cohort, is d[t, a]. Part of d is real, the rest is noise of seeds and of few rare actions; the share that is real,
tau² / (tau² + noise[a]), is estimated from all assets together (empirical Bayes). An asset's value of a trial is then
the cohort's plus that share of d.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from b3dist.training.metrics import macro_f1_of
from b3dist.tuning.scores import AssetScore

Array = npt.NDArray[np.float64]

_DRAWS = 400


@dataclass(frozen=True, kw_only=True)
class OwnChoice:
    """What an asset should use."""

    trial: int
    """Index into the trials given."""
    share: float
    """How much of the asset's own deviation counts as real, 0 to 1."""
    noise: float
    """Standard error of one of its scores."""


def choose_per_asset(
    scores: Mapping[str, Sequence[AssetScore]], cohort: Sequence[float], seed_variance: Mapping[str, float]
) -> dict[str, OwnChoice]:
    """The best trial for each asset.

    Args:
        scores: validation scores by ticker, one per trial, in the same order.
        cohort: pooled macro F1 of each trial.
        seed_variance: by ticker, variance of its macro F1 over seeds under the same parameters.
    """
    tickers = list(scores)
    own = np.array([[score.macro_f1 for score in scores[ticker]] for ticker in tickers]).T  # (trials, assets)
    noise = np.array([seed_variance.get(ticker, 0.0) + sampling_variance(scores[ticker]) for ticker in tickers])
    deviation = own - own.mean(axis=0) - own.mean(axis=1, keepdims=True) + own.mean()
    shares = real_share(deviation, noise)
    values = np.asarray(cohort)[:, None] + shares * deviation
    return {
        ticker: OwnChoice(
            trial=int(values[:, column].argmax()),
            share=float(shares[column]),
            noise=float(np.sqrt(noise[column])),
        )
        for column, ticker in enumerate(tickers)
    }


def real_share(deviation: Array, noise: Array) -> Array:
    """Share of each asset's deviations that is no noise: (assets,) in [0, 1].

    Args:
        deviation: (trials, assets), each row and column with mean 0.
        noise: (assets,) variance of a score.

    Source: the moment estimator of Paule and Mandel (1982).
    """
    num_trials, num_assets = deviation.shape
    if num_trials < 2 or num_assets < 2:
        return np.zeros(num_assets)
    freedom = (num_trials - 1) * (num_assets - 1)
    squares, noise = np.square(deviation).sum(axis=0), np.maximum(noise, 1e-12)

    def surplus(real: float) -> float:
        return float((squares / (real + noise)).sum() - freedom)

    if surplus(0.0) <= 0:
        return np.zeros(num_assets)
    # Each asset weighs by its own noise, so that one noisy asset does not hide what the others show.
    real = float(brentq(surplus, 0.0, float(squares.sum())))
    return np.asarray(real / (real + noise))


def sampling_variance(scores: Sequence[AssetScore]) -> float:
    """Variance of an asset's macro F1 over other windows it might have had: its confusion counts, drawn again.

    Overlapping windows make the true one larger; that the same windows judge every trial makes a difference's smaller.
    """
    counts = np.mean([score.confusion for score in scores], axis=0).reshape(-1)
    total = round(float(counts.sum()))
    if total == 0:
        return 0.0
    draws = np.random.default_rng(0).multinomial(total, counts / counts.sum(), size=_DRAWS)
    return float(macro_f1_of(draws.reshape(-1, 3, 3)).var())
