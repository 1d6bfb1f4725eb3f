"""The sessions of B3, from the exchange calendar BVMF."""

import warnings
from datetime import date
from typing import Final

import exchange_calendars
import numpy as np
import numpy.typing as npt
import pandas as pd

FIRST_KNOWN: Final = date(1995, 1, 2)
"""Before this date the calendar's holidays are not checked."""


def exchange_sessions(first: date, last: date) -> npt.NDArray[np.datetime64]:
    """B3's sessions from `first` to `last`, both included, datetime64[D], ascending."""
    margin = pd.Timedelta(days=10)  # the calendar wants a start before its end, and a session between them
    with warnings.catch_warnings():
        # exchange_calendars 4.13 reads time-zone-aware Series.values, which pandas 3.1 announces to change.
        warnings.filterwarnings("ignore", message="Series.values returning an ndarray", category=DeprecationWarning)
        calendar = exchange_calendars.get_calendar(
            "BVMF", start=pd.Timestamp(first) - margin, end=pd.Timestamp(last) + margin
        )
    sessions: npt.NDArray[np.datetime64] = calendar.sessions.to_numpy().astype("datetime64[D]")
    return sessions[(sessions >= np.datetime64(first)) & (sessions <= np.datetime64(last))]
