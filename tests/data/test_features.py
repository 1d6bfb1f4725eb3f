"""Features reproduce their definitions, see nothing of the future and are finite everywhere."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b3dist.data.features import FEATURE_NAMES, INVALID_ROWS, Bars, compute_features
from tests.conftest import Columns, make_columns


def bars_of(columns: Columns, factor: np.ndarray | None = None) -> Bars:
    return Bars.adjusted(columns, np.ones(len(columns["close"])) if factor is None else factor)


def pandas_v1(columns: Columns) -> pd.DataFrame:
    """The v1 columns written with pandas alone: an independent oracle."""
    frame = pd.DataFrame(
        {name: columns[name] for name in ("open", "high", "close", "best_bid", "best_ask", "quantity")}
    )
    close, volume = frame["close"], frame["quantity"]
    steps = close.diff()
    gains, losses = steps.clip(lower=0).rolling(14).mean(), (-steps).clip(lower=0).rolling(14).mean()
    lowest, highest = close.rolling(14).min(), close.rolling(14).max()
    return pd.DataFrame(
        {
            "rolling_volatility_5": ((close - frame["open"]) / frame["open"]).rolling(5).std(),
            "moving_avg_10": close.rolling(10).mean(),
            "macd": close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean(),
            "rsi_14": 100 - 100 / (1 + gains / losses),
            "volume_change": volume.pct_change(),
            "avg_volume_10": volume.rolling(10).mean(),
            "best_buy_sell_spread": frame["best_ask"] - frame["best_bid"],
            "close_to_best_buy": (close - frame["best_bid"]) / frame["best_bid"],
            "price_momentum_5": close.pct_change(5),
            "high_breakout_20": (frame["high"] == frame["high"].rolling(20).max()).astype(float),
            "bollinger_upper": close.rolling(20).mean() + 2 * close.rolling(20).std(),
            "stochastic_14": 100 * (close - lowest) / (highest - lowest),
            "close": close,
        }
    )


def test_v1_equals_its_definition_in_pandas() -> None:
    """Every v1 column agrees with an independent pandas formula on random bars."""
    columns = make_columns(300, seed=3)
    expected = pandas_v1(columns)
    assert tuple(expected.columns) == FEATURE_NAMES["v1"]
    found = compute_features(bars_of(columns), "v1")
    np.testing.assert_allclose(found[INVALID_ROWS:], expected.to_numpy()[INVALID_ROWS:], rtol=1e-9, atol=1e-9)
    assert np.isnan(found[:INVALID_ROWS]).all()


@pytest.mark.parametrize("feature_set", ["v1", "v2"])
@given(cut=st.integers(INVALID_ROWS + 1, 118), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_features_are_causal(feature_set: str, cut: int, seed: int) -> None:
    """Changing every bar after a row leaves the features up to that row the same to the bit."""
    columns, other = make_columns(120, seed=seed), make_columns(120, seed=seed + 5000)
    mixed = {name: np.concatenate([columns[name][: cut + 1], other[name][cut + 1 :]]) for name in columns}
    original = compute_features(bars_of(columns), feature_set)  # type: ignore[arg-type]
    changed = compute_features(bars_of(mixed), feature_set)  # type: ignore[arg-type]
    np.testing.assert_array_equal(original[: cut + 1], changed[: cut + 1])


@pytest.mark.parametrize("feature_set", ["v1", "v2"])
def test_standing_prices_missing_quotes_and_zero_volume_stay_finite(feature_set: str) -> None:
    """0/0 in RSI or stochastic is 50, no quote is 0: no row inside a history is lost."""
    columns = make_columns(80, seed=1)
    for name in ("open", "high", "low", "close"):
        columns[name][30:60] = 7.0
    columns["best_bid"][20:40] = 0.0
    columns["quantity"][25:28] = 0.0
    features = compute_features(bars_of(columns), feature_set)  # type: ignore[arg-type]
    assert np.isfinite(features[INVALID_ROWS:]).all()
    names = FEATURE_NAMES[feature_set]
    assert features[55, names.index("rsi_14")] == 50.0
    assert features[55, names.index("stochastic_14")] == 50.0
    assert features[30, names.index("close_to_best_buy")] == 0.0


def test_v2_is_scale_free() -> None:
    """Multiplying all prices by 8 and all volumes by 4 changes no v2 feature."""
    columns = make_columns(100, seed=2)
    scaled = {
        name: values * (4 if name == "quantity" else 8)
        for name, values in columns.items()
        if name in Bars.__annotations__
    }
    np.testing.assert_allclose(
        compute_features(bars_of(columns), "v2")[INVALID_ROWS:],
        compute_features(Bars.adjusted(scaled, np.ones(100)), "v2")[INVALID_ROWS:],
        atol=1e-12,
    )


def test_a_split_leaves_no_trace_after_adjustment(asset_columns: Callable[..., Columns]) -> None:
    """Bars quoted at half price and twice the volume before a row, adjusted back, give the same features."""
    columns = asset_columns(150, seed=4)
    factor = np.where(np.arange(150) < 70, 0.5, 1.0)
    traded = {name: columns[name].copy() for name in columns}
    for name in ("open", "high", "low", "close", "best_bid", "best_ask"):
        traded[name][:70] *= 2
    traded["quantity"][:70] /= 2
    np.testing.assert_allclose(
        compute_features(bars_of(traded, factor), "v1")[INVALID_ROWS:],
        compute_features(bars_of(columns), "v1")[INVALID_ROWS:],
        rtol=1e-12,
    )
