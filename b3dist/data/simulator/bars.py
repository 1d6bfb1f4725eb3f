"""From a simulated history to COTAHIST records: prices on the cent grid, quotes that show the state, volumes, marks.

Quotes and volumes are where the planted state u can be seen. The best bid stands half-spread x (1 + 0.35 (u + noise))
below the close, the best ask about one half-spread above it, and the log of the volume moves with 0.5 u: in feature
terms close_to_best_buy, best_buy_sell_spread and the volume's ratios rise with u. A state that shows in several columns
is learned faster: nn.LSTM of the card on 8 assets, v2, signal 0.3, reached a test IC of 0.20 with the volume in it and
0.18 without (means of 3 seeds; ordinary least squares 0.22 and 0.21, the state itself 0.28).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from b3dist.data.cotahist import FIELDS
from b3dist.data.simulator.market import MARK_SESSIONS, AssetHistory, CorporateEvent, Floats, Ints

Sessions = npt.NDArray[np.datetime64]

NO_EXPIRY: Final = np.datetime64("9999-12-31", "D")
"""What COTAHIST prints where an instrument does not expire."""

_LOWEST_PRICE = 12.0  # BRL: a cent is at most 0.08 % of any price
_HALF_SPREAD = 0.0035
_STATE_IN_BID = 0.35
_STATE_IN_VOLUME = 0.5
_QUOTE_NOISE = 0.2
_MISSING_QUOTES = 0.004
_MARK_ORDER = "DJBG"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """How an asset is listed."""

    ticker: str
    name: str
    share_class: str
    segment: str
    isin: str


def listings(count: int) -> list[Listing]:
    """The first `count` simulated listings: SIMA3, SIMA4, SIMB11, SIMC3, SIMD5, SIME3, SIMF3, SIMF4, ...

    Every fifth company has both common and preferred shares, others common only, units or class A preferred.
    """
    found: list[Listing] = []
    company = 0
    while len(found) < count:
        code = "SI" + chr(ord("A") + (12 + company // 26) % 26) + chr(ord("A") + company % 26)
        for number, share_class, segment, kind in _CLASSES[company % len(_CLASSES)]:
            found.append(
                Listing(
                    ticker=f"{code}{number}",
                    name=f"SIMULADA {code[2:]}",
                    share_class=share_class,
                    segment=segment,
                    isin=_isin(f"BR{code}{kind}"),
                )
            )
        company += 1
    return found[:count]


_CLASSES: Final = (
    (("3", "ON", "N1", "ACNOR"), ("4", "PN", "N1", "ACNPR")),
    (("11", "UNT", "N2", "CDAM1"),),
    (("3", "ON", "NM", "ACNOR"),),
    (("5", "PNA", "", "ACNPA"),),
    (("3", "ON", "NM", "ACNOR"),),
)


def _isin(stem: str) -> str:
    """The 11 characters with their ISO 6166 check digit (letters are 10 to 35, then Luhn)."""
    digits = "".join(str(int(character, 36)) for character in stem)
    total = sum(
        sum(divmod(int(digit) * (2 if place % 2 == 0 else 1), 10)) for place, digit in enumerate(reversed(digits))
    )
    return stem + str(-total % 10)


def asset_records(history: AssetHistory, listing: Listing, calendar: Sessions, *, seed: int) -> pd.DataFrame:
    """One asset's record per traded session, in the raw record columns of `write_cotahist`, prices as traded.

    The random numbers here (quotes, ranges, volumes) depend on seed and asset only.
    """
    rng = np.random.default_rng([seed, history.number + 1, 2])
    close, base = _prices(history, rng)
    bars = _bars(close, base, history.volatility, rng)
    quotes = _quotes(close, history.state, rng)
    volumes = _volumes(bars["average"], history, rng)
    count = len(close)
    marks = _marks(history.events, count)
    distribution = 100 + int(rng.integers(0, 60)) + np.searchsorted(_ex_rows(history.events), np.arange(count), "right")
    fixed = {
        "session": calendar[history.traded].astype("datetime64[s]"),
        "bdi_code": np.full(count, 2),
        "ticker": listing.ticker,
        "market": np.full(count, 10),
        "name": listing.name,
        "specification": [f"{listing.share_class:<4}{mark:<4}{listing.segment}".rstrip() for mark in marks],
        "isin": listing.isin,
        "distribution_number": distribution,
    }
    return complete_records(pd.DataFrame({**fixed, **bars, **quotes, **volumes}))


def complete_records(records: pd.DataFrame) -> pd.DataFrame:
    """The frame with the fields that are the same for every cash-market record where it lacks them, in layout order."""
    defaults = {
        "term_days": "",
        "currency": "R$",
        "strike": 0.0,
        "strike_correction": 0,
        "expiry": NO_EXPIRY.astype("datetime64[s]"),
        "quote_factor": 1,
        "strike_points": 0.0,
    }
    missing = {name: value for name, value in defaults.items() if name not in records}
    return records.assign(**missing)[[field.name for field in FIELDS]]


def share_factors(history: AssetHistory) -> Floats:
    """(n,) shares that one share of the first session has become by each session, ex-dates included."""
    steps = np.ones(len(history.returns))
    for event in history.events:
        steps[event.row] *= event.factor
    return np.cumprod(steps)


def _prices(history: AssetHistory, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Closes and the closes before restated for each session's corporate events, both (n,) BRL.

    The level is drawn, then raised until no traded price falls below _LOWEST_PRICE, so that cents stay small.
    """
    drops = np.ones(len(history.returns))
    for event in history.events:
        drops[event.row] *= 1 - event.drop
    path = np.cumprod((1 + history.returns) * drops) / share_factors(history)
    level = max(float(rng.uniform(22, 60)) / float(np.median(path)), _LOWEST_PRICE / float(path.min()))
    close = level * path
    return close, close / (1 + history.returns)


def _bars(close: Floats, base: Floats, volatility: Floats, rng: np.random.Generator) -> dict[str, Floats]:
    """Open, high, low, average and close on the cent grid; the overnight step takes about a third of the return."""
    count = len(close)
    overnight = 0.35 * (close / base - 1) + 0.3 * volatility * rng.standard_normal(count)
    opening = np.maximum(base * (1 + overnight), 0.5 * close)
    reach = 0.5 * volatility * np.abs(rng.standard_normal((2, count)))
    high = np.maximum(opening, close) * (1 + reach[0])
    low = np.minimum(opening, close) * np.maximum(1 - reach[1], 0.5)
    average = low + (high - low) * rng.beta(4, 4, count)
    prices = {"open": opening, "high": high, "low": low, "average": average, "close": close}
    return {name: _cents(price) for name, price in prices.items()}


def _quotes(close: Floats, state: Floats, rng: np.random.Generator) -> dict[str, Floats]:
    """Best bid and ask at the close, one cent apart from it at least; in a few sessions one or both are missing (0)."""
    count = len(close)
    half_spread = _HALF_SPREAD * float(rng.uniform(0.9, 1.3))
    seen = state + _QUOTE_NOISE * rng.standard_normal(count)
    below = half_spread * np.maximum(1 + _STATE_IN_BID * seen, 0.05)
    above = half_spread * (1 + 0.1 * np.abs(rng.standard_normal(count)))
    bid = np.minimum(_cents(close * (1 - below)), _cents(close) - 0.01)
    ask = np.maximum(_cents(close * (1 + above)), _cents(close) + 0.01)
    missing = rng.random((2, count)) < _MISSING_QUOTES
    return {
        "best_bid": np.where(missing[0], 0.0, _cents(bid)),
        "best_ask": np.where(missing[1], 0.0, _cents(ask)),
    }


def _volumes(average: Floats, history: AssetHistory, rng: np.random.Generator) -> dict[str, Floats | Ints]:
    """Trades, quantity in round lots, and BRL turnover: slow swings, the state, and large moves drive them."""
    count = len(average)
    swing = np.zeros(count)
    noise = rng.standard_normal((3, count))
    for row in range(1, count):
        swing[row] = 0.9 * swing[row - 1] + 0.15 * noise[0, row]
    surprise = np.abs(history.returns) / np.median(history.volatility)
    activity = swing + _STATE_IN_VOLUME * history.state + 0.3 * noise[1] + 0.3 * np.minimum(surprise, 5.0)
    turnover = float(rng.lognormal(17.0, 0.8)) * np.exp(activity)
    quantity = np.maximum(np.rint(turnover / average / 100), 1).astype(np.int64) * 100
    trades = np.clip(quantity * average / 9_000 * np.exp(0.2 * noise[2]), 1, 99_999).astype(np.int64)
    return {"trades": trades, "quantity": quantity, "turnover_brl": _cents(quantity * average)}


def _ex_rows(events: tuple[CorporateEvent, ...]) -> Ints:
    return np.unique(np.array([event.row for event in events], dtype=np.int64))


def _marks(events: tuple[CorporateEvent, ...], count: int) -> list[str]:
    """(n,) ex-mark per session: each event's letter stands for MARK_SESSIONS, a second event adds its own."""
    letters = [""] * count
    for event in events:
        for row in range(event.row, min(event.row + MARK_SESSIONS, count)):
            letters[row] += event.letter
    return ["".join(["E", *(letter for letter in _MARK_ORDER if letter in held)]) if held else "" for held in letters]


def _cents(price: Floats) -> Floats:
    return np.rint(price * 100) / 100
