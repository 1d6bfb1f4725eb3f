"""Bars that deserve a look: each function finds one kind of problem and says in its detail what the numbers are.

All take bars of several tickers in BARS columns (prices as traded, `adjustment` filled), sorted by ticker, then
session, and return ticker, session, detail. Nothing is repaired.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from b3dist.data.market import MarketMove

FREAK_SPREADS: Final = 8.0
"""A return is freak beyond this many robust standard deviations of its ticker's year ..."""

FREAK_RETURN: Final = 0.15
"""... and beyond this log return, the market's taken out ..."""

FREAK_TICKS: Final = 2.5
"""... and this many ticks: of a share at R$ 0.03 one centavo is a third."""

LEAST_SPREAD: Final = 0.01
"""Robust standard deviation assumed at least; a rarely moving price has a median move of 0."""

STALE_BARS: Final = 10
"""Bars in a row with one and the same close, all of them traded."""

GAP_SESSIONS: Final = 5
"""Exchange sessions between neighbouring bars beyond which no window crosses (`data.max_gap`)."""

WRAP: Final = 100_000
"""TOTNEG has five digits: trades are counted modulo this."""

_MAD_TO_STD: Final = 1.4826  # of the normal distribution
_NEAR_WRAP: Final = 60_000
_BUSY_TRADES: Final = 20_000
_RECENT_BARS: Final = 60


def freak_returns(bars: pd.DataFrame, market: MarketMove) -> pd.DataFrame:
    """Closes that jump far beyond what the ticker does in that year and what the market did, after adjustment."""
    later, earlier = _neighbours(bars)
    adjusted = bars["close"].to_numpy(dtype=float) * bars["adjustment"].to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.log(adjusted[later] / adjusted[earlier])
    move = plain - market.until_close(earlier, later)
    groups = [pd.Series(bars["ticker"].to_numpy()[later]), pd.Series(_years(bars)[later])]
    spread = _MAD_TO_STD * pd.Series(np.abs(move)).groupby(groups).transform("median").to_numpy()
    spread = np.maximum(spread, LEAST_SPREAD)
    tick = 0.01 / bars["quote_factor"].to_numpy(dtype=float)[later] * bars["adjustment"].to_numpy(dtype=float)[later]
    freak = np.abs(move) > np.maximum(FREAK_SPREADS * spread, FREAK_RETURN)
    freak &= np.abs(adjusted[later] - adjusted[earlier]) > FREAK_TICKS * tick

    marks, numbers = bars["ex_mark"].fillna("").to_numpy(dtype=object), bars["distribution_number"].to_numpy()
    found = np.flatnonzero(freak)
    detail = []
    for i in found:
        now, before = later[i], earlier[i]
        mark = f", ex-mark {marks[now]}" if marks[now] else ""
        dismes = ", distribution number grew" if numbers[now] > numbers[before] else ""
        detail.append(
            f"adjusted close {adjusted[before]:.4g} -> {adjusted[now]:.4g} ({np.expm1(plain[i]):+.1%}), beside the"
            f" market {abs(move[i]) / spread[i]:.0f} times this year's spread of {spread[i]:.1%}{mark}{dismes}"
        )
    return _problems(bars, later[found], detail)


def impossible_bars(bars: pd.DataFrame) -> pd.DataFrame:
    """Prices that contradict each other: not above 0, or open, close or average outside low..high."""
    low, high = bars["low"].to_numpy(dtype=float), bars["high"].to_numpy(dtype=float)
    prices = bars[["open", "close", "average"]].to_numpy(dtype=float)
    tick = 0.01 / bars["quote_factor"].to_numpy(dtype=float)  # the average is rounded
    outside = (prices < (low - tick)[:, None]) | (prices > (high + tick)[:, None])
    rows = np.flatnonzero(outside.any(axis=1) | ~(low > 0) | ~(high >= low))
    detail = [
        "open {:.4g}, close {:.4g}, average {:.4g} in a session from {:.4g} to {:.4g}".format(
            *prices[i], low[i], high[i]
        )
        for i in rows
    ]
    return _problems(bars, rows, detail)


def stale_closes(bars: pd.DataFrame) -> pd.DataFrame:
    """Runs of STALE_BARS or more traded bars with one unchanged close; the session is the run's first."""
    close = bars["close"].to_numpy(dtype=float)
    later, earlier = _neighbours(bars)
    same = np.zeros(len(bars), dtype=bool)
    same[later] = close[later] == close[earlier]
    starts = np.flatnonzero(~same)
    lengths = np.diff(np.append(starts, len(bars)))
    long = lengths >= STALE_BARS
    sessions = _days(bars)
    detail = [
        f"close {close[start]:.4g} unchanged in {length} traded bars, to {sessions[start + length - 1]}"
        for start, length in zip(starts[long], lengths[long], strict=True)
    ]
    return _problems(bars, starts[long], detail)


def zero_quotes(bars: pd.DataFrame) -> pd.DataFrame:
    """Tickers with closes where no bid or no ask stood; one entry per ticker, at the first such session."""
    no_bid, no_ask = bars["best_bid"].to_numpy() <= 0, bars["best_ask"].to_numpy() <= 0
    table = pd.DataFrame({"ticker": bars["ticker"].to_numpy(), "bid": no_bid, "ask": no_ask, "either": no_bid | no_ask})
    counts = table.groupby("ticker", sort=False)[["bid", "ask", "either"]].sum()
    sizes = table.groupby("ticker", sort=False).size()
    first = table.index[table["either"] & ~table["ticker"].where(table["either"]).duplicated()]
    detail = [
        f"{counts['either'][ticker]} of {sizes[ticker]} bars closed without a bid ({counts['bid'][ticker]}) or an ask"
        f" ({counts['ask'][ticker]})"
        for ticker in table["ticker"][first]
    ]
    return _problems(bars, first.to_numpy(), detail)


def wrapped_trades(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars whose trade count looks as if it had passed 100,000 and begun again: turnover stayed, trades fell.

    The trades to expect are turnover / usual turnover per trade: the lower quartile over the ticker's last 60 bars,
    because a wrapped count only ever makes trades look larger. Only tickers that came near 100,000 at some time, and
    were busy in those bars, are asked about: one large block in a sleepy share is no wrap.
    """
    trades, turnover = bars["trades"].to_numpy(dtype=float), bars["turnover_brl"].to_numpy(dtype=float)
    tickers = bars["ticker"].to_numpy(dtype=object)
    most = bars.groupby("ticker", sort=False)["trades"].transform("max").to_numpy()
    rows = np.flatnonzero(most >= _NEAR_WRAP)
    recent = pd.DataFrame({"trades": trades[rows], "size": turnover[rows] / np.maximum(trades[rows], 1)})
    rolling = recent.groupby(tickers[rows], sort=False).rolling(_RECENT_BARS, min_periods=_RECENT_BARS // 3)
    usual = rolling["size"].quantile(0.25).to_numpy()  # rows are sorted by ticker: the order stays
    busy = rolling["trades"].max().to_numpy() >= _BUSY_TRADES
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = turnover[rows] / usual
        fits_wrapped = np.abs(np.log((trades[rows] + WRAP) / expected)) < np.log(1.4)
        suspect = np.flatnonzero(busy & fits_wrapped & (trades[rows] < expected / 2))
    detail = [
        f"{trades[rows[i]]:,.0f} trades for R$ {turnover[rows[i]] / 1e6:,.0f} million, where about {expected[i]:,.0f}"
        f" are usual: {trades[rows[i]] + WRAP:,.0f} before the count wrapped?"
        for i in suspect
    ]
    return _problems(bars, rows[suspect], detail)


def long_gaps(bars: pd.DataFrame, market: MarketMove) -> pd.DataFrame:
    """Halts and pauses: more than GAP_SESSIONS exchange sessions from one bar to the next; the session ends the gap."""
    later, earlier = _neighbours(bars)
    sessions_between = market.sessions_between(earlier, later)
    long = sessions_between > GAP_SESSIONS
    days = _days(bars)
    detail = [
        f"{length - 1} exchange sessions without a bar since {days[before]}: no window crosses"
        for before, length in zip(earlier[long], sessions_between[long], strict=True)
    ]
    return _problems(bars, later[long], detail)


def _neighbours(bars: pd.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows with a bar of the same ticker before them, and the rows of those bars."""
    codes = pd.factorize(bars["ticker"])[0]
    later = np.flatnonzero(codes[1:] == codes[:-1]) + 1
    return later, later - 1


def _days(bars: pd.DataFrame) -> npt.NDArray[np.datetime64]:
    return np.asarray(pd.to_datetime(bars["session"]).to_numpy().astype("datetime64[D]"))


def _years(bars: pd.DataFrame) -> npt.NDArray[np.int64]:
    return _days(bars).astype("datetime64[Y]").astype(np.int64)


def _problems(bars: pd.DataFrame, rows: Any, detail: Iterable[str]) -> pd.DataFrame:
    at = bars.iloc[rows]
    return pd.DataFrame(
        {
            "ticker": at["ticker"].to_numpy(dtype=object),
            "session": _days(at),
            "detail": np.array([*detail], dtype=object),
        }
    )
