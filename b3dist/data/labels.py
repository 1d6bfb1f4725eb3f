"""Label sets: the action of a row, from sessions after it.

Both read rows up to t + horizon and no further, so a purge of `horizon` rows separates training from validation.
"""

from typing import cast

import numpy as np
import numpy.typing as npt

from b3dist.config import DataConfig
from b3dist.data.features import Array, Bars, Indicators, compute_indicators
from b3dist.data.schema import BUY, HOLD, SELL

Actions = npt.NDArray[np.int64]


def future_return(close: Array, horizon: int) -> Array:
    """close[t + horizon] / close[t] - 1 as a fraction: (rows,); NaN for the last `horizon` rows."""
    returns = np.full(close.shape, np.nan)
    returns[:-horizon] = close[horizon:] / close[:-horizon] - 1.0
    return returns


def label_actions(bars: Bars, config: DataConfig) -> Actions:
    """Action of each row under config.label_set: (rows,) of 0 buy, 1 sell, 2 hold, or -1 where not known yet."""
    if config.label_set == "signal_cluster":
        actions = signal_cluster(compute_indicators(bars))
        actions[-config.horizon :] = -1
        return actions
    return forward_return(
        bars.close, horizon=config.horizon, multiple=config.volatility_multiple, window=config.volatility_window
    )


def signal_cluster(indicators: Indicators) -> Actions:
    """The card's rule, applied to the session after the row.

    Buy where RSI < 30, MACD > 0 and volume rises; sell where RSI > 70, five-session momentum < 0 and volume falls;
    hold otherwise. The last row is -1. Source: reference implementation of the model card.
    """
    buy = (indicators.rsi_14 < 30) & (indicators.macd > 0) & (indicators.volume_change > 0)
    sell = (indicators.rsi_14 > 70) & (indicators.price_momentum_5 < 0) & (indicators.volume_change < 0)
    rule = np.where(buy, BUY, np.where(sell, SELL, HOLD))
    return cast(Actions, np.append(rule[1:], -1).astype(np.int64))


def forward_return(close: Array, *, horizon: int, multiple: float, window: int) -> Actions:
    """Buy (sell) where the return over `horizon` sessions lies above (below) multiple x volatility x sqrt(horizon).

    Volatility is the standard deviation (ddof 1) of the last `window` one-session returns, known at the row.
    Rows without `window` returns before them and the last `horizon` rows are -1.
    """
    steps = np.full(close.shape, np.nan)
    steps[1:] = close[1:] / close[:-1] - 1.0
    volatility = np.full(close.shape, np.nan)
    if close.size > window:
        volatility[window:] = np.lib.stride_tricks.sliding_window_view(steps[1:], window).std(axis=1, ddof=1)
    barrier = multiple * volatility * np.sqrt(horizon)
    returns = future_return(close, horizon)
    actions = np.where(returns > barrier, BUY, np.where(returns < -barrier, SELL, HOLD))
    actions[np.isnan(returns) | np.isnan(barrier)] = -1
    return actions.astype(np.int64)
