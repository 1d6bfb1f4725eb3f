"""Bars that a caller sends: checked before anything is computed from them."""

import functools
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from b3dist.data.features import INPUT_COLUMNS
from b3dist.errors import BadBarError, DataError

FIRST_SESSION, LAST_SESSION = np.datetime64("1986-01-02"), np.datetime64("2099-12-31")
"""Of any bar: COTAHIST begins in 1986."""
LARGEST: Final = 1e12
"""BRL or shares: beyond it a value is a mistake, and its square leaves what 32 bits hold."""

_MAY_BE_ZERO: Final = {"best_bid": "a price of 0 (no quote) or more", "best_ask": "a price of 0 (no quote) or more"}
_EXPECTED: Final = {**_MAY_BE_ZERO, "quantity": "0 shares or more"}

Sessions = npt.NDArray[np.datetime64]


def check_bars(ticker: str, bars: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
    """A caller's bars as arrays: session (rows,) datetime64[D] and INPUT_COLUMNS (rows,) float64.

    Raises:
        BadBarError: sessions do not ascend; a value is NaN, infinite, negative, beyond LARGEST, or a price of 0.
        DataError: a field is missing, not a column of numbers or of another length.
    """
    missing = [name for name in ("session", *INPUT_COLUMNS) if name not in bars]
    if missing:
        raise DataError(
            f"{ticker}'s bars have no {', '.join(missing)}", hint=f"send session, {', '.join(INPUT_COLUMNS)}"
        )
    sessions = _check_sessions(ticker, bars["session"])
    columns: dict[str, npt.NDArray[Any]] = {"session": sessions}
    for name in INPUT_COLUMNS:
        columns[name] = _check_numbers(ticker, name, bars[name], sessions)
    return columns


def positions_of(sessions: Sessions, calendar: Sessions) -> npt.NDArray[np.intp]:
    """Index of each session in a calendar, which B3's own is laid around where it is too short: (rows,)."""
    if len(calendar) and len(sessions) and (sessions[0] < calendar[0] or sessions[-1] > calendar[-1]):
        official = _official_sessions()
        before, after = official[official < calendar[0]], official[official > calendar[-1]]
        calendar = np.concatenate([before, calendar, after])
    return np.searchsorted(calendar, sessions)


def _check_sessions(ticker: str, given: npt.ArrayLike) -> Sessions:
    try:
        sessions = np.asarray(given).astype("datetime64[D]")
    except (ValueError, TypeError) as error:
        raise DataError(f"{ticker}'s session is no column of dates: {error}", hint="dates like 2018-12-28") from None
    if sessions.ndim != 1:
        raise DataError(f"{ticker}'s session has {sessions.ndim} dimensions, expected one")
    outside = ~((sessions >= FIRST_SESSION) & (sessions <= LAST_SESSION))  # NaT is outside too
    if outside.any():
        row = int(np.argmax(outside))
        raise BadBarError(
            f"{ticker}'s session in row {row} is {sessions[row]}, expected {FIRST_SESSION} to {LAST_SESSION}",
            ticker=ticker,
            field="session",
            row=row,
        )
    falls = np.flatnonzero(np.diff(sessions) <= np.timedelta64(0, "D"))
    if len(falls):
        row = int(falls[0]) + 1
        raise BadBarError(
            f"{ticker}'s session in row {row} is {sessions[row]}, not after row {row - 1}'s {sessions[row - 1]}",
            ticker=ticker,
            field="session",
            row=row,
            hint="send each session once, in ascending order",
        )
    return sessions


def _check_numbers(ticker: str, name: str, given: npt.ArrayLike, sessions: Sessions) -> npt.NDArray[np.float64]:
    try:
        values = np.asarray(given, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{ticker}'s {name} is no column of numbers: {error}") from None
    if values.shape != sessions.shape:
        raise DataError(f"{ticker}'s {name} has shape {values.shape}, expected {len(sessions)} values, one per session")
    good = (values >= 0 if name in _EXPECTED else values > 0) & (values <= LARGEST)  # NaN is neither
    if not good.all():
        row = int(np.argmin(good))
        expected = _EXPECTED.get(name, "a price above 0")
        raise BadBarError(
            f"{ticker}'s {name} in row {row} ({sessions[row]}) is {values[row]:g}, expected {expected},"
            f" at most {LARGEST:g}",
            ticker=ticker,
            field=name,
            row=row,
        )
    return values


@functools.cache
def _official_sessions() -> Sessions:
    """B3's sessions as far as any bar may lie; takes a quarter of a second, and seconds to import."""
    from b3dist.data.exchange import b3_sessions

    return b3_sessions(FIRST_SESSION, LAST_SESSION)
