"""Causal features: row t uses bars at or before t, each windowed value exactly its own window's bars.

Only the exponential averages of `macd` look back without limit: after WARMUP_SESSIONS bars they differ from the full
history's by less than 1e-7 of a standard deviation (after 150 by up to 1e-4, after 65 by 0.05; random walks).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import lfilter

from b3dist.config import FeatureSet

Array = npt.NDArray[np.float64]

INVALID_ROWS = 19
"""Leading rows of a history without features: the longest plain window is 20 sessions."""
WARMUP_SESSIONS = 250
"""Sessions before a window's first row after which `macd` no longer depends on where the history starts."""
PRICE_COLUMNS = ("open", "high", "low", "close", "best_bid", "best_ask")
INPUT_COLUMNS = (*PRICE_COLUMNS, "quantity")

V1 = (
    "rolling_volatility_5",
    "moving_avg_10",
    "macd",
    "rsi_14",
    "volume_change",
    "avg_volume_10",
    "best_buy_sell_spread",
    "close_to_best_buy",
    "price_momentum_5",
    "high_breakout_20",
    "bollinger_upper",
    "stochastic_14",
    "close",
)
"""The card's 13 columns, in its order. Prices in BRL at the anchor's basis, volumes in shares at the anchor's basis."""

V2 = (
    "rolling_volatility_5",
    "close_to_moving_avg_10",
    "macd_to_close",
    "rsi_14",
    "log_volume_change",
    "log_volume_to_avg_10",
    "spread_to_mid",
    "close_to_best_buy",
    "price_momentum_5",
    "high_breakout_20",
    "close_to_bollinger_upper",
    "stochastic_14",
    "log_return",
)
"""The scale-free counterpart of each v1 column: no levels, so that they compare across assets and years."""

BASIS_EXPONENTS: Mapping[str, int] = {
    "moving_avg_10": 1,
    "macd": 1,
    "avg_volume_10": -1,
    "best_buy_sell_spread": 1,
    "bollinger_upper": 1,
    "close": 1,
}
"""How a feature moves with the price basis: prices x c makes it x c ** exponent; the others do not move."""

FEATURE_NAMES: Mapping[str, tuple[str, ...]] = {"v1": V1, "v2": V2}


@dataclass(frozen=True)
class Bars:
    """One asset's bars as arrays, each (rows,) float64, ascending by session, adjusted to one basis."""

    open: Array
    high: Array
    low: Array
    close: Array
    best_bid: Array
    best_ask: Array
    quantity: Array

    @classmethod
    def adjusted(cls, columns: Mapping[str, npt.ArrayLike], factor: Array) -> "Bars":
        """Bars from columns as traded, prices multiplied and quantity divided by factor: (rows,)."""
        values = {name: np.asarray(columns[name], dtype=np.float64) for name in INPUT_COLUMNS}
        for name in PRICE_COLUMNS:
            values[name] = values[name] * factor
        values["quantity"] = values["quantity"] / factor
        return cls(**values)


@dataclass(frozen=True)
class Indicators:
    """The indicators that features and the card's labels share, each (rows,) float64; NaN where undefined so far."""

    rsi_14: Array
    macd: Array
    volume_change: Array
    price_momentum_5: Array


def compute_indicators(bars: Bars) -> Indicators:
    """RSI(14), MACD(12, 26), one-session volume change and five-session momentum of adjusted bars."""
    return Indicators(
        rsi_14=_rsi(bars.close, 14),
        macd=_ewm(bars.close, 12) - _ewm(bars.close, 26),
        volume_change=_change(bars.quantity, 1),
        price_momentum_5=_change(bars.close, 5),
    )


def compute_features(bars: Bars, feature_set: FeatureSet) -> Array:
    """Features of every row.

    Args:
        bars: adjusted to one basis.
        feature_set: v1 or v2; the columns are FEATURE_NAMES[feature_set].

    Returns:
        (rows, F) float64; rows before INVALID_ROWS hold NaN, every later value is finite.
    """
    close = bars.close
    indicators = compute_indicators(bars)
    quoted = (bars.best_bid > 0) & (bars.best_ask > 0)
    spread = np.where(quoted, bars.best_ask - bars.best_bid, 0.0)
    close_to_bid = np.where(quoted, close / np.where(quoted, bars.best_bid, 1.0) - 1.0, 0.0)
    volatility = _rolling_std((close - bars.open) / bars.open, 5)
    average_10 = _rolling_mean(close, 10)
    average_volume = _rolling_mean(bars.quantity, 10)
    bollinger = _rolling_mean(close, 20) + 2.0 * _rolling_std(close, 20)
    breakout = (bars.high == _rolling(bars.high, 20).max(axis=1)).astype(np.float64)
    stochastic = _stochastic(close, 14)
    if feature_set == "v1":
        columns = [
            volatility,
            average_10,
            indicators.macd,
            indicators.rsi_14,
            indicators.volume_change,
            average_volume,
            spread,
            close_to_bid,
            indicators.price_momentum_5,
            breakout,
            bollinger,
            stochastic,
            close,
        ]
    else:
        mid = np.where(quoted, (bars.best_ask + bars.best_bid) / 2.0, 1.0)
        columns = [
            volatility,
            close / average_10 - 1.0,
            indicators.macd / close,
            indicators.rsi_14,
            np.log(np.maximum(1.0 + indicators.volume_change, 1e-6)),
            np.log(np.maximum(bars.quantity, 1.0) / np.maximum(average_volume, 1.0)),
            spread / mid,
            close_to_bid,
            indicators.price_momentum_5,
            breakout,
            close / bollinger - 1.0,
            stochastic,
            np.log1p(_change(close, 1)),
        ]
    features = np.column_stack(columns)
    features[:INVALID_ROWS] = np.nan
    return features


def _rolling(values: Array, size: int) -> Array:
    """Windows ending at each row: (rows, size); the first size - 1 rows hold NaN."""
    padded = np.concatenate([np.full(size - 1, np.nan), values])
    return cast(Array, sliding_window_view(padded, size))


def _rolling_mean(values: Array, size: int) -> Array:
    return _rolling(values, size).mean(axis=1)


def _rolling_std(values: Array, size: int) -> Array:
    return _rolling(values, size).std(axis=1, ddof=1)


def _change(values: Array, sessions: int) -> Array:
    """values[t] / values[t - sessions] - 1; 0 where the earlier value is 0."""
    change = np.full(values.shape, np.nan)
    earlier = values[:-sessions]
    known = earlier != 0
    change[sessions:] = np.where(known, values[sessions:] / np.where(known, earlier, 1.0) - 1.0, 0.0)
    return change


def _ewm(values: Array, span: int) -> Array:
    """Exponential average with alpha 2 / (span + 1), started at the first value (pandas' adjust=False)."""
    if values.size == 0:
        return values
    alpha = 2.0 / (span + 1.0)
    smoothed, _ = lfilter([alpha], [1.0, alpha - 1.0], values, zi=[(1.0 - alpha) * values[0]])
    return cast(Array, smoothed)


def _rsi(close: Array, size: int) -> Array:
    """RSI from simple means of gains and losses; 50 where the price stood still, 100 where it never fell."""
    steps = np.diff(close, prepend=np.nan)
    gains = _rolling_mean(np.where(steps > 0, steps, np.where(np.isnan(steps), np.nan, 0.0)), size)
    losses = _rolling_mean(np.where(steps < 0, -steps, np.where(np.isnan(steps), np.nan, 0.0)), size)
    total = gains + losses
    still = total == 0
    return np.where(still, 50.0, 100.0 * gains / np.where(still, 1.0, total))


def _stochastic(close: Array, size: int) -> Array:
    """Position of the close within its range of `size` closes, 0 to 100; 50 where the range is empty."""
    windows = _rolling(close, size)
    lowest, highest = windows.min(axis=1), windows.max(axis=1)
    width = highest - lowest
    still = width == 0
    return np.where(still, 50.0, 100.0 * (close - lowest) / np.where(still, 1.0, width))
