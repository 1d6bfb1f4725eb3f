"""The health of a lake's bars: what `check` reports. Nothing is repaired; findings say what the numbers are."""

from typing import Final

import numpy as np
import pandas as pd

from b3dist.data.exchange import Days, b3_sessions, runs_of
from b3dist.data.market import MarketMove
from b3dist.data.renames import propose_renames
from b3dist.data.suspects import (
    freak_returns,
    impossible_bars,
    long_gaps,
    stale_closes,
    wrapped_trades,
    zero_quotes,
)

WHOLE_LAKE: Final = "*"
"""In place of a ticker where a problem concerns all of them."""

COLUMNS: Final = (
    "session", "ticker", "isin", "name", "class", "open", "high", "low", "average", "close", "best_bid", "best_ask",
    "trades", "turnover_brl", "quote_factor", "ex_mark", "distribution_number", "adjustment",
)  # fmt: skip
"""Columns of BARS that find_problems reads."""

KINDS: Final = {
    "missing_session": "B3 held sessions that no file of this lake covers",
    "unknown_session": "the lake has sessions that B3's calendar does not know",
    "freak_return": "the adjusted close jumps far beyond the ticker's own year and the market",
    "impossible_bar": "prices of one bar contradict each other",
    "stale_close": "the close stays the same over many traded bars",
    "zero_quote": "no bid or no ask stood at the close",
    "wrapped_trades": "the trade count may have passed 100,000 and begun again",
    "gap": "a halt or pause that no window crosses",
    "rename": "two tickers may be one asset; see ingest --renames",
}
"""Every kind of problem, in order of report, and what it means."""


def find_problems(bars: pd.DataFrame) -> pd.DataFrame:
    """All suspicious things in the bars.

    Args:
        bars: COLUMNS of all tickers, sorted by ticker, then session; prices as traded.

    Returns:
        ticker, session (datetime64[s]), kind (of KINDS), detail; sorted by kind in that order, then ticker and session.
    """
    market = MarketMove(bars)
    found = {
        **_calendar_problems(np.unique(pd.to_datetime(bars["session"]).to_numpy().astype("datetime64[D]"))),
        "freak_return": freak_returns(bars, market),
        "impossible_bar": impossible_bars(bars),
        "stale_close": stale_closes(bars),
        "zero_quote": zero_quotes(bars),
        "wrapped_trades": wrapped_trades(bars),
        "gap": long_gaps(bars, market),
        "rename": propose_renames(bars).rename(columns={"old": "ticker", "date": "session"}),
    }
    parts = [found[kind].assign(kind=kind) for kind in KINDS]
    problems = pd.concat(parts, ignore_index=True)[["ticker", "session", "kind", "detail"]]
    problems = problems.astype({"ticker": "str", "session": "datetime64[s]", "kind": "str", "detail": "str"})
    order = problems["kind"].map({kind: i for i, kind in enumerate(KINDS)})
    return (
        problems.assign(order=order)
        .sort_values(["order", "ticker", "session"], ignore_index=True)
        .drop(columns="order")
    )


def _calendar_problems(sessions: Days) -> dict[str, pd.DataFrame]:
    """Runs of sessions that only B3's calendar or only the lake has, between the lake's first and last session."""
    official = b3_sessions(sessions[0], sessions[-1]) if len(sessions) else sessions
    found = {}
    for kind, days, verb in (
        ("missing_session", np.setdiff1d(official, sessions), "held by B3 but in no file of this lake"),
        ("unknown_session", np.setdiff1d(sessions, official), "in the lake but not in B3's calendar"),
    ):
        every_day = np.union1d(official, sessions)
        rows = [
            (WHOLE_LAKE, first, f"{num} session(s) {verb}: {first} to {last}")
            for first, last, num in runs_of(days, every_day)
        ]
        found[kind] = pd.DataFrame(rows, columns=["ticker", "session", "detail"])
    return found
