"""Parameters per asset: own evidence counts where it is real, else the cohort's best is taken."""

import numpy as np
import pytest

from b3dist.tuning.scores import AssetScore
from b3dist.tuning.shrinkage import choose_per_asset, real_share, sampling_variance


def test_noise_is_shrunk_away_and_real_differences_are_kept() -> None:
    """The share estimated is close to the true one: 0 where there is only noise, 0.8 where a fifth of it is."""
    rng = np.random.default_rng(0)
    noise = np.full(40, 1.0)
    nothing = centred(rng.normal(0, 1, (60, 40)))
    assert real_share(nothing, noise).max() < 0.1
    real = centred(rng.normal(0, 2, (60, 40)) + rng.normal(0, 1, (60, 40)))
    assert real_share(real, noise) == pytest.approx(np.full(40, 0.8), abs=0.05)


def centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()


def test_an_asset_with_little_evidence_counts_less() -> None:
    """The more noise in its score, the smaller its share."""
    rng = np.random.default_rng(1)
    noise = np.array([0.1, 4.0] * 10)
    shares = real_share(centred(rng.normal(0, 2, (30, 20))), noise)
    assert shares[0] > 0.9
    assert shares[1] < shares[0]


def scored(hits: int, *, windows: int) -> AssetScore:
    """An asset that finds a share of its buys and sells, hits of 10, in so many windows."""
    rare = max(windows // 10, 1)
    found = rare * hits // 10
    confusion = [[found, rare - found, 0], [rare - found, found, 0], [0, 0, windows]]
    return AssetScore(confusion=np.array(confusion), squared_error=1.0, naive_squared_error=1.0)


def test_assets_with_plain_evidence_get_their_own_trial_and_others_the_cohorts() -> None:
    """Half the assets prefer trial 1 in thousands of windows, the cohort as a whole trial 2."""
    long = {
        f"OWN{one}": [scored(5, windows=5000), scored(9, windows=5000), scored(6, windows=5000)] for one in range(4)
    }
    rest = {
        f"REST{one}": [scored(5, windows=5000), scored(1, windows=5000), scored(6, windows=5000)] for one in range(3)
    }
    short = {"THIN3": [scored(5, windows=20), scored(10, windows=20), scored(5, windows=20)]}
    scores = {**long, **rest, **short}
    chosen = choose_per_asset(scores, [0.70, 0.72, 0.76], {**dict.fromkeys(scores, 1e-4), "THIN3": 0.5})
    assert {chosen[ticker].trial for ticker in long} == {1}
    assert {chosen[ticker].trial for ticker in rest} == {2}
    assert chosen["THIN3"].trial == 2
    assert chosen["THIN3"].share < 0.2 < chosen["OWN0"].share


def test_fewer_windows_make_a_score_less_certain() -> None:
    """About by their number."""
    few, many = (sampling_variance([scored(5, windows=windows)]) for windows in (50, 5000))
    assert few > 20 * many > 0


def test_one_asset_or_one_trial_is_no_evidence() -> None:
    """Nothing can be told apart; the cohort decides."""
    chosen = choose_per_asset({"PETR4": [scored(1, windows=500), scored(9, windows=500)]}, [0.6, 0.5], {})
    assert (chosen["PETR4"].trial, chosen["PETR4"].share) == (0, 0.0)
