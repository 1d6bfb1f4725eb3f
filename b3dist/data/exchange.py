"""The sessions B3 held, by the calendar of the exchange_calendars library (BVMF), against those of a lake."""

import warnings
from collections.abc import Iterator
from typing import Any

import exchange_calendars
import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.errors import Pandas4Warning

Days = npt.NDArray[np.datetime64]

_EARLIEST, _LATEST = np.datetime64("1900-01-01"), np.datetime64("2200-12-31")
"""Bounds that the library's nanoseconds hold; a damaged file may date a session in any year."""


def b3_sessions(first: np.datetime64, last: np.datetime64) -> Days:
    """(sessions,) datetime64[D], ascending: B3's sessions from `first` to `last`, both included.

    Source: exchange_calendars, BVMF. It agrees with the official files of 2012-2018 and January 2021 in every session.
    """
    first, last = max(first, _EARLIEST), min(last, _LATEST)
    if first > last:
        return np.array([], dtype="datetime64[D]")
    # The library refuses bounds inside its first and last known session, so it gets a margin.
    start, end = pd.Timestamp(first) - pd.Timedelta(days=14), pd.Timestamp(last) + pd.Timedelta(days=14)
    with warnings.catch_warnings():
        # exchange_calendars 4.13 reads a time zone aware Series as NumPy, which pandas 3.1 announces to change.
        warnings.simplefilter("ignore", Pandas4Warning)
        calendar: Any = exchange_calendars.get_calendar("BVMF", start=start, end=end)
    sessions: Days = calendar.sessions.to_numpy().astype("datetime64[D]")
    return sessions[(sessions >= first) & (sessions <= last)]


def runs_of(sessions: Days, among: Days) -> Iterator[tuple[np.datetime64, np.datetime64, int]]:
    """First, last and length of each run of `sessions` (a subset) that are neighbours in `among`; both ascending."""
    if not len(sessions):
        return
    positions = np.searchsorted(among, sessions)
    borders = np.flatnonzero(np.diff(positions) != 1) + 1
    for run in np.split(sessions, borders):
        yield run[0], run[-1], len(run)
