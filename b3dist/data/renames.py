"""Tickers that changed their name: a user's list of renames, the joined histories, and proposals found in the bars.

B3 gives a renamed company a new ticker and a new ISIN, and COTAHIST links the two nowhere: KROT3 ends one session,
COGN3 begins the next. What carries over is the class, the price and how much is traded.
"""

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from b3dist.data.market import MarketMove
from b3dist.data.user_csv import Column, parse_session, parse_ticker, read_user_csv
from b3dist.errors import DataError

MAX_SESSIONS_APART: Final = 3
"""Exchange sessions from the old ticker's last bar to the new one's first; 1 is the next session."""

MIN_BARS: Final = 5
"""Bars that either history needs, and sessions the old ticker must stay away for."""

TYPICAL_BARS: Final = 20
"""Bars on either side that tell what is typical: how often it trades, and its median turnover."""

REGULAR: Final = 0.8
"""Share of exchange sessions that both traded on around the change; of a rarely traded ticker no bar is the last."""

MAX_MOVE: Final = 0.05
"""Log price move, the market's taken out, that two tickers with nothing else in common may differ by."""

MAX_MOVE_OF_RELATIVES: Final = 0.25
"""The same where ISIN or company name agree."""

MAX_TURNOVER_RATIO: Final = 5.0
"""Typical turnover may change by this factor, up or down."""

_RENAME_CSV: Final = (
    Column(name="old", parse=parse_ticker, expected="a ticker like KROT3"),
    Column(name="new", parse=parse_ticker, expected="a ticker like COGN3"),
    Column(name="date", parse=parse_session, expected="the first session of the new ticker, like 2019-12-13"),
)


def read_renames(path: Path) -> pd.DataFrame:
    """A user's renames: a CSV with old, new and date, the first session under the new ticker.

    Returns:
        old, new, date (datetime64[s]); sorted by date.

    Raises:
        DataError: unreadable file or bad row (file, line, column, expected), or a ticker renamed twice on one date.
    """
    rows = read_user_csv(path, columns=_RENAME_CSV)
    renames = pd.DataFrame(rows, columns=["old", "new", "date"]).astype(
        {"old": "str", "new": "str", "date": "datetime64[s]"}
    )
    for ticker in renames.loc[renames["old"] == renames["new"], "old"]:
        raise DataError(f"{path}: {ticker} is renamed to itself: expected two different tickers")
    for side in ("old", "new"):
        for ticker in renames.loc[renames.duplicated([side, "date"]), side]:
            raise DataError(f"{path}: {ticker} stands twice as {side} on one date: expected one row")
    return renames.sort_values("date", kind="stable", ignore_index=True)


def apply_renames(bars: pd.DataFrame, renames: pd.DataFrame) -> pd.DataFrame:
    """Bars with each old ticker's sessions before the date under the new ticker; sorted by ticker, then session.

    Chains (A to B, later B to C) end at the last ticker. Renames of tickers without bars change nothing. Bars of the
    old ticker from the date on keep it: B3 hands out tickers again.

    Raises:
        DataError: the new ticker has bars of its own before the date; joining would mix two assets.
    """
    ticker = bars["ticker"].to_numpy(dtype=object).copy()
    sessions = pd.to_datetime(bars["session"]).to_numpy().astype("datetime64[s]")
    ordered = renames.sort_values("date", kind="stable")
    dates = pd.to_datetime(ordered["date"]).to_numpy().astype("datetime64[s]")
    for old, new, date in zip(ordered["old"], ordered["new"], dates, strict=True):
        earlier = sessions < date
        moved, own = earlier & (ticker == old), earlier & (ticker == new)
        if moved.any() and own.any():
            raise DataError(
                f"cannot join {old} to {new}: {new} has {own.sum()} bars of its own before {date.astype('M8[D]')},"
                f" the first on {sessions[own].min().astype('M8[D]')}",
                hint="the date of a rename is the first session under the new ticker; correct or remove the row",
            )
        ticker[moved] = new
    renamed = bars.assign(ticker=pd.array(ticker, dtype="str"))
    return renamed.sort_values(["ticker", "session"], kind="stable", ignore_index=True)


def propose_renames(bars: pd.DataFrame) -> pd.DataFrame:
    """Pairs of tickers that look like one asset renamed; for a person to judge, never applied by itself.

    The old ticker ends for good just before the new one begins, both traded regularly, ticker number and class agree,
    and price and turnover carry over: closely, or loosely where ISIN or company name agree as well.

    Args:
        bars: BARS columns of several tickers, sorted by ticker, then session.

    Returns:
        old, new, date (first session of the new ticker), detail (the evidence in words); each ticker at most once as
        old and once as new; sorted by date.
    """
    market = MarketMove(bars)
    old, new = _ends(bars, market, of_old=True), _ends(bars, market, of_old=False)
    last_position = int(market.position.max()) if len(bars) else 0
    old = old[(old["position"] <= last_position - MIN_BARS) & old["regular"]]
    new = new[(new["position"] > 0) & new["regular"]]

    pairs = old.merge(new, on=["number", "class"], suffixes=("_old", "_new"))
    pairs["apart"] = pairs["position_new"] - pairs["position_old"]
    pairs = pairs[pairs["apart"].between(1, MAX_SESSIONS_APART)].copy()
    pairs["move"] = pairs["log_price_new"] - pairs["log_price_old"]
    pairs["move"] -= market.until_opening(pairs["row_old"].to_numpy(), pairs["row_new"].to_numpy())
    pairs["kinship"] = np.select(
        [pairs["isin_old"] == pairs["isin_new"], pairs["company_old"] == pairs["company_new"]],
        ["same ISIN", "same company name"],
        "",
    )
    allowed = np.where(pairs["kinship"] != "", MAX_MOVE_OF_RELATIVES, MAX_MOVE)
    turnover_ratio = (pairs["log_turnover_new"] - pairs["log_turnover_old"]).abs()
    pairs = pairs[(pairs["move"].abs() <= allowed) & (turnover_ratio <= np.log(MAX_TURNOVER_RATIO))]
    return _described(_one_to_one(pairs))


def _ends(bars: pd.DataFrame, market: MarketMove, *, of_old: bool) -> pd.DataFrame:
    """One row per ticker: its last bar and what was typical before it, or its first bar and what was typical after."""
    tickers = bars["ticker"].to_numpy(dtype=object)
    starts = np.flatnonzero(np.append([True], tickers[1:] != tickers[:-1])[: len(bars)])
    stops = np.append(starts[1:], len(bars))[: len(starts)]
    rows = stops - 1 if of_old else starts
    other_rows = np.maximum(stops - TYPICAL_BARS, starts) if of_old else np.minimum(starts + TYPICAL_BARS, stops) - 1
    low, high = np.minimum(rows, other_rows), np.maximum(rows, other_rows)
    num_bars = high - low + 1
    span = market.sessions_between(low, high) + 1
    turnover = bars["turnover_brl"].to_numpy(dtype=float)
    at = bars.iloc[rows]
    with np.errstate(divide="ignore"):
        return pd.DataFrame(
            {
                "ticker": tickers[rows],
                "number": [str(ticker)[4:] for ticker in tickers[rows]],
                "class": at["class"].to_numpy(dtype=object),
                "isin": at["isin"].to_numpy(dtype=object),
                "company": [str(name).partition(" ")[0] for name in at["name"]],
                "row": rows,
                "position": market.position[rows],
                "session": pd.to_datetime(at["session"]).to_numpy(),
                "log_price": np.log(at["close" if of_old else "open"].to_numpy(dtype=float)),
                "log_turnover": [np.log(np.median(turnover[a : b + 1])) for a, b in zip(low, high, strict=True)],
                "regular": (num_bars >= MIN_BARS) & (num_bars >= REGULAR * span),
            }
        )


def _one_to_one(pairs: pd.DataFrame) -> pd.DataFrame:
    """Each ticker at most once as old and once as new: kinship wins, then the smaller price move."""
    ranked = pairs.assign(stranger=pairs["kinship"] == "", size=pairs["move"].abs()).sort_values(["stranger", "size"])
    return ranked.drop_duplicates("ticker_old").drop_duplicates("ticker_new").sort_values(["session_new", "ticker_old"])


def _described(pairs: pd.DataFrame) -> pd.DataFrame:
    detail = [
        f"{pair['ticker_old']} ends on {pair['session_old']:%Y-%m-%d}; {pair['ticker_new']} begins {pair['apart']}"
        f" exchange session(s) later {np.expm1(pair['move']):+.1%} from its price, the market's move taken out"
        + (f"; {pair['kinship']}" if pair["kinship"] else "")
        for pair in pairs.to_dict("records")
    ]
    proposals = pairs.rename(columns={"ticker_old": "old", "ticker_new": "new", "session_new": "date"})
    return proposals[["old", "new", "date"]].assign(detail=detail).reset_index(drop=True)
