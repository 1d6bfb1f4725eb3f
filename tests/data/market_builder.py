"""Constructed bars: a small market whose every price step is known."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

NUM_SESSIONS = 40
SESSIONS = pd.bdate_range("2016-03-01", periods=NUM_SESSIONS).to_numpy().astype("datetime64[s]")


def asset_bars(
    ticker: str,
    *,
    returns: Mapping[int, float] | None = None,
    step_at: int = 20,
    factor: float = 1.0,
    cash: float = 0.0,
    marks: Mapping[int, str] | None = None,
    dismes_grows_at: Sequence[int] = (20,),
    price: float = 40.0,
    present: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Bars of one ticker over SESSIONS: flat prices but for `returns` overnight, a share event and a cash payment.

    At session `step_at` the price is divided by `factor` and loses the share `cash`; only sessions `present` are kept.
    """
    moves = np.zeros(NUM_SESSIONS)
    for session, move in (returns or {}).items():
        moves[session] += np.log1p(move)
    moves[step_at] += np.log1p(-cash) - np.log(factor)
    close = np.round(price * np.exp(np.cumsum(moves)), 2)
    grown = np.zeros(NUM_SESSIONS, dtype=int)
    for session in dismes_grows_at:
        grown[session:] += 1
    ex_mark = [(marks or {}).get(session, "") for session in range(NUM_SESSIONS)]
    frame = pd.DataFrame(
        {
            "session": SESSIONS,
            "ticker": ticker,
            "isin": f"BR{ticker[:4]}ACNOR0",
            "name": ticker[:4],
            "class": "ON",
            "open": close,
            "high": close,
            "low": close,
            "average": close,
            "close": close,
            "best_bid": close - 0.01,
            "best_ask": close + 0.01,
            "trades": 1000,
            "quantity": 100_000,
            "turnover_brl": close * 100_000,
            "quote_factor": 1,
            "ex_mark": ex_mark,
            "distribution_number": 100 + grown,
        }
    )
    return frame if present is None else frame.iloc[list(present)].reset_index(drop=True)


def market_bars(*assets: pd.DataFrame, returns: Mapping[int, float] | None = None) -> pd.DataFrame:
    """The assets among 30 others without events that all move by `returns`; sorted by ticker, then session."""
    other = asset_bars("ZZZZ3", returns=returns, dismes_grows_at=())
    others = [other.assign(ticker=f"Z{i:03d}3") for i in range(30)]
    return pd.concat([*assets, *others]).sort_values(["ticker", "session"], ignore_index=True)


def standing(letters: str, *, since: int = 20) -> dict[int, str]:
    """A mark for its 8 sessions."""
    return dict.fromkeys(range(since, min(since + 8, NUM_SESSIONS)), letters)
