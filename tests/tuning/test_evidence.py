"""The paired bootstrap: covers the truth as often as it says, finds a real gain, and is not fooled by luck."""

import numpy as np
import pytest

from b3dist.tuning.evidence import error_ratio_change, macro_f1_gain
from b3dist.tuning.scores import AssetScore

LABELS = np.repeat([0, 1, 2], [12, 18, 270])


def asset(rng: np.random.Generator, hit_rate: float, *, ratio: float = 1.0) -> AssetScore:
    """An asset whose every window is called rightly with some probability, else by chance."""
    predicted = np.where(rng.uniform(size=len(LABELS)) < hit_rate, LABELS, rng.integers(0, 3, len(LABELS)))
    return AssetScore(
        confusion=np.bincount(LABELS * 3 + predicted, minlength=9).reshape(3, 3),
        squared_error=ratio**2,
        naive_squared_error=1.0,
    )


def test_a_real_gain_is_found_and_the_baseline_against_itself_is_none() -> None:
    """The interval of twice the same is a point at zero."""
    rng = np.random.default_rng(0)
    worse, better = ([asset(rng, rate) for _ in range(20)] for rate in (0.5, 0.7))
    gain = macro_f1_gain(better, worse, seed=1)
    assert 0 < gain.low < gain.difference < gain.high
    same = macro_f1_gain(worse, worse, seed=1)
    assert (same.low, same.difference, same.high) == (0.0, 0.0, 0.0)


def test_luck_passes_about_as_often_as_the_level_says() -> None:
    """Of 200 pairs without a difference about 1 in 20 excludes zero; percentile intervals over 20 assets a few more."""
    rng = np.random.default_rng(1)
    excluded = 0
    for seed in range(200):
        left, right = ([asset(rng, 0.5) for _ in range(20)] for _ in range(2))
        gain = macro_f1_gain(left, right, seed=seed)
        excluded += not gain.low <= 0 <= gain.high
    assert excluded <= 24


def test_pairing_takes_out_what_assets_have_in_common() -> None:
    """Assets of very different difficulty, the same small gain in each: found all the same."""
    rng = np.random.default_rng(2)
    ratios = rng.uniform(0.8, 1.6, 12)
    baseline = [asset(rng, 0.5, ratio=ratio) for ratio in ratios]
    challenger = [asset(rng, 0.5, ratio=0.99 * ratio) for ratio in ratios]
    change = error_ratio_change(challenger, baseline, seed=3)
    assert change.high < 0
    assert change.difference == pytest.approx(-0.01 * float(np.exp(np.log(ratios).mean())))


def test_the_interval_depends_on_its_seed_alone() -> None:
    """Same scores and seed, same bits; a lower level is narrower."""
    rng = np.random.default_rng(4)
    left, right = ([asset(rng, rate) for _ in range(8)] for rate in (0.6, 0.5))
    assert macro_f1_gain(left, right, seed=7) == macro_f1_gain(left, right, seed=7)
    wide, narrow = (macro_f1_gain(left, right, seed=7, level=level) for level in (0.975, 0.8))
    assert wide.low < narrow.low < narrow.high < wide.high
