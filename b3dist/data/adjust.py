"""Share events (splits, bonuses, reverse splits) found in the bars, and the price adjustment they add up to.

B3 writes no list of share events into COTAHIST; three traces of one agree on the ex-date, and all three are asked for:

1. DISMES (`distribution_number`) grows: something was distributed or changed that day;
2. the ex-mark gains a B (bonus, split) or a G (reverse split), so that the something was shares and not cash;
3. the price steps by a plausible ratio overnight, after taking out the market's own move.

docs/share_events.md has the evidence and every miss. An event needs nothing later than its ex-date's opening price.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from b3dist.data.market import MarketMove
from b3dist.data.user_csv import Column, parse_session, parse_ticker, read_user_csv
from b3dist.errors import DataError

MARK_SESSIONS: Final = 8
"""Sessions that an ex-mark stands, the ex-date included (measured: official file of January 2021)."""

USUAL_FACTORS: Final = (1.05, 1.1, 1.2, 1.25, 1.3, 1.5, 2, 3, 4, 5, 10, 20, 25, 50, 100, 1000)
"""New shares per old one that companies choose; their inverses from 1.5 on are the reverse splits."""

RARE_FACTORS: Final = (1.15, 1.4, 2.5, 6, 7, 8, 9, 12, 15, 30, 40, 60, 200, 250, 500)
"""Factors that occur, but must fit the price better than a usual one by RARE_COST to be believed."""

RARE_COST: Final = 0.03
"""Log price: about the spread of an ex-date's opening around its fair value (0.034 over the 102 known events)."""

SNAP_REACH: Final = 0.15
"""Log price: a step farther than this from every factor is kept as measured."""

UNMISTAKABLE: Final = 1.8
"""A step of this size, up or down, is shares even where the mark's letter cannot say so."""

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BONUS: Final = 1 << _LETTERS.index("B")
_REVERSE: Final = 1 << _LETTERS.index("G")

LARGEST_FACTOR: Final = 1e6
"""Most new shares per old one, and the inverse, taken from a user's file: beyond it prices leave a float's range."""

EVENT_COLUMNS: Final = ("ticker", "ex_date", "factor", "mark")


def _parse_factor(text: str) -> float:
    factor = float(text)
    if not 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
        raise ValueError(text)
    return factor


_EVENT_CSV: Final = (
    Column(name="ticker", parse=parse_ticker, expected="a ticker like PETR4"),
    Column(name="ex_date", parse=parse_session, expected="a date like 2018-12-28"),
    Column(
        name="factor", parse=_parse_factor, expected="new shares per old one, a number from 1e-6 to 1e6 (1 cancels)"
    ),
    Column(name="mark", parse=str, expected="an ex-mark like EB", optional=True),
)


def find_share_events(bars: pd.DataFrame) -> pd.DataFrame:
    """Splits, bonuses and reverse splits in the bars.

    Args:
        bars: BARS columns (ticker, session, open, close, quote_factor, ex_mark, distribution_number, isin are read),
            sorted by ticker, then session; prices per share as traded. More tickers make a better market control.

    Returns:
        ticker, ex_date (datetime64[s], a session of the bars), factor (new shares per old one; above 1: price falls)
        and mark (the ex-mark that day, may be empty); sorted by ticker, then ex_date. An event uses bars up to and
        including its ex-date's opening and distribution number, none later.
    """
    now = _rows_where_dismes_grew(bars)
    after, before = bars.iloc[now], bars.iloc[now - 1]
    market = MarketMove(bars)
    gap = market.sessions_between(now - 1, now)
    new, standing = _mark_letters(after["ex_mark"], before["ex_mark"], stale=gap >= MARK_SESSIONS)

    opening, close = after["open"].to_numpy(dtype=float), before["close"].to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.log(close / opening) + market.until_opening(now - 1, now)
        # A cent per quoted lot, relative to the lower of the two prices: no price is known better.
        tick = 0.01 / (after["quote_factor"].to_numpy(dtype=float) * np.minimum(close, opening))

    factor = np.ones(len(now))
    for letter, sign in ((_BONUS, 1), (_REVERSE, -1)):
        snapped = _snap(step, tick=tick, sign=sign)
        clear = np.abs(np.log(snapped)) >= np.log(UNMISTAKABLE)
        # The letter is new; or no letter is new and this one stands: then only a step no dividend makes is a second
        # event; or the bar before is so old that the mark came and went unseen.
        unseen = (gap > MARK_SESSIONS) & (new == 0)
        believed = (new & letter != 0) | (clear & (((new == 0) & (standing & letter != 0)) | unseen))
        factor = np.where(believed & (snapped != 1) & (factor == 1), snapped, factor)
    found = factor != 1
    return _events_frame(
        after["ticker"].to_numpy(dtype=object)[found],
        after["session"].to_numpy()[found],
        factor[found],
        after["ex_mark"].fillna("").to_numpy(dtype=object)[found],
    )


def read_events(path: Path) -> pd.DataFrame:
    """A user's share events: a CSV with ticker, ex_date, factor and, if wanted, mark; see `override_events`.

    Returns:
        ticker, ex_date (datetime64[s]), factor (above 0; 1 cancels a detected event), mark; sorted.

    Raises:
        DataError: unreadable file or bad row (file, line, column, expected), or two rows for one ticker and date.
    """
    rows = read_user_csv(path, columns=_EVENT_CSV)
    events = _events_frame(*([row[name] for row in rows] for name in EVENT_COLUMNS))
    twice = events[events.duplicated(["ticker", "ex_date"])]
    if len(twice):
        first = twice.iloc[0]
        raise DataError(f"{path}: {first['ticker']} has two rows for {first['ex_date']:%Y-%m-%d}: expected one")
    return events


def override_events(found: pd.DataFrame, given: pd.DataFrame) -> pd.DataFrame:
    """Detected events with a user's laid over them: same ticker and date replaces, a factor of 1 cancels."""
    both = pd.concat([found, given], ignore_index=True).drop_duplicates(["ticker", "ex_date"], keep="last")
    kept = both[both["factor"] != 1]
    return kept.sort_values(["ticker", "ex_date"], kind="stable", ignore_index=True)


def adjustment_factors(bars: pd.DataFrame, events: pd.DataFrame) -> npt.NDArray[np.float64]:
    """What to multiply each bar's prices by (and divide its quantity by) to compare it with the ticker's newest bar.

    Args:
        bars: ticker and session are read; any order.
        events: ticker, ex_date, factor; events of other tickers and dates without a bar are welcome.

    Returns:
        (rows,) the product of 1 / factor over the ticker's events with ex_date after the row's session.
    """
    sorted_events = events.sort_values(["ticker", "ex_date"], kind="stable")
    codes, tickers = pd.factorize(sorted_events["ticker"])
    suffix = np.ones(len(codes) + 1)
    factors = sorted_events["factor"].to_numpy(dtype=float)
    for i in range(len(codes) - 1, -1, -1):
        last_of_ticker = i + 1 == len(codes) or codes[i + 1] != codes[i]
        suffix[i] = (1.0 if last_of_ticker else suffix[i + 1]) / factors[i]

    days_per_ticker = 1 << 20  # more than the days from 1970 to any date: ticker and day in one sortable number
    event_days = pd.to_datetime(sorted_events["ex_date"]).to_numpy().astype("datetime64[D]").astype(np.int64)
    bar_codes = pd.Index(tickers).get_indexer(pd.Index(bars["ticker"])).astype(np.int64)
    bar_days = pd.to_datetime(bars["session"]).to_numpy().astype("datetime64[D]").astype(np.int64)
    next_event = np.searchsorted(
        codes * days_per_ticker + event_days, bar_codes * days_per_ticker + bar_days, side="right"
    )
    same_ticker = np.append(codes, -2)[next_event] == bar_codes
    return np.where(same_ticker, suffix[next_event], 1.0)


def _events_frame(ticker: object, ex_date: object, factor: object, mark: object) -> pd.DataFrame:
    frame = pd.DataFrame({"ticker": ticker, "ex_date": ex_date, "factor": factor, "mark": mark})
    dtypes = {"ticker": "str", "ex_date": "datetime64[s]", "factor": "float64", "mark": "str"}
    return frame.astype(dtypes).sort_values(["ticker", "ex_date"], kind="stable", ignore_index=True)


def _rows_where_dismes_grew(bars: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Row numbers whose distribution number is above that of the same ticker's bar before.

    DISMES counts the distributions of one ISIN; a new ISIN (or a joined history) starts its own count.
    """
    ticker = pd.factorize(bars["ticker"])[0]
    isin = pd.factorize(bars["isin"])[0]
    number = bars["distribution_number"].to_numpy(dtype=np.int64)
    moved = (number[1:] > number[:-1]) | (isin[1:] != isin[:-1])
    return np.flatnonzero((ticker[1:] == ticker[:-1]) & moved) + 1


def _mark_letters(
    marks: "pd.Series[str]", marks_before: "pd.Series[str]", *, stale: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bit sets of the letters each mark gained and of those that it kept; a stale mark before counts as none."""
    codes, uniques = pd.factorize(pd.concat([marks, marks_before]).fillna(""))
    letters = np.array([_letters_of(str(mark)) for mark in uniques], dtype=np.int64)
    now, before = np.split(letters[codes], 2)
    before = np.where(stale, 0, before)
    return now & ~before, now & before


def _letters_of(mark: str) -> int:
    """Bit set of the letters after the E: "EDB" -> {D, B}; marks that are no ex-mark ("ATZ", "INT", "*") have none."""
    word = mark.replace("*", "").strip()
    if not word.startswith("E"):
        return 0
    return sum(1 << _LETTERS.index(letter) for letter in set(word[1:]) if letter in _LETTERS)


def _snap(step: npt.NDArray[np.float64], *, tick: npt.NDArray[np.float64], sign: int) -> npt.NDArray[np.float64]:
    """The most plausible factor for each price step.

    Args:
        step: (events,) log of price before / price after, the market's move taken out.
        tick: (events,) relative size of the smallest price change: no price is known better.
        sign: 1 for factors above 1, -1 for reverse splits (no company consolidates less than 3 to 2).

    Returns:
        (events,) factor; 1 where the step is nearer to none or goes the other way.
    """
    usual, rare = (np.array([f for f in group if sign > 0 or f >= 1.5]) for group in (USUAL_FACTORS, RARE_FACTORS))
    ladder = sign * np.log(np.concatenate([[1.0], usual, rare]))
    cost = np.concatenate([np.zeros(1 + len(usual)), np.full(len(rare), RARE_COST)])
    distance = np.abs(step[:, None] - ladder)
    reach = np.maximum(SNAP_REACH, tick)[:, None]
    best = np.where(distance <= reach, distance + cost, np.inf).argmin(axis=1)
    within = (distance <= reach).any(axis=1)
    measured = np.where(np.isfinite(step) & (sign * step > 0), np.exp(step), 1.0)
    values = np.concatenate([[1.0], usual, rare]) ** float(sign)
    return np.where(within, values[best], measured)
