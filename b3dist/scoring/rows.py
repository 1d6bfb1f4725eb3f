"""One asset's rows as one released model sees them: at its anchor's basis, in its scaler's units.

The same functions as in training make them: `bars_at_basis`, `compute_features`, `Scaler.transform`, `count_gaps`.
Every row depends on bars at or before its session alone, but for the price basis: adjustment(t) / adjustment(anchor),
which for a session before the anchor takes the share events between the two.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from b3dist.config import DataConfig
from b3dist.data.features import INPUT_COLUMNS, INVALID_ROWS, Array, compute_features
from b3dist.data.lake import Lake
from b3dist.data.windows import Scaler, bars_at_basis, count_gaps
from b3dist.errors import DataError, TooFewSessionsError
from b3dist.release import ReleasedModel

SCORED_COLUMNS: Final = ("session", *INPUT_COLUMNS, "adjustment")
"""The lake's columns that a score depends on."""
TICKERS_AT_ONCE: Final = 32
"""Neighbouring tickers read in one go: bounds the memory; one by one takes ten times as long."""

Columns = Mapping[str, npt.NDArray[Any]]
Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class AssetRows:
    """What is resident of one asset; every array is (rows, ...), ascending by session."""

    ticker: str
    lookback: int
    sessions: npt.NDArray[np.datetime64]
    position: Positions
    """Index of each session in the exchange's calendar."""
    close: Array
    """BRL as given: as traded in a lake."""
    features: npt.NDArray[np.float32]
    """(rows, F) z-scores."""
    gaps: npt.NDArray[np.int64]
    """Gaps up to each row: a window may not cross one."""
    usable: npt.NDArray[np.bool_]
    """Whether the window that ends at each row can be scored: `refuse` has no reason against it."""
    warm_up: int
    """Rows before a window's first one that its features need."""
    defect: str
    """Why rows from `defect_from` on cannot be scored; empty if all can."""
    defect_from: int

    def last_row(self, position: int) -> int:
        """The last row at or before a position of the calendar; -1: none."""
        return int(np.searchsorted(self.position, position, side="right")) - 1

    def refuse(self, end: int) -> NoReturn:
        """Say why the window that ends at a row cannot be scored.

        Raises:
            TooFewSessionsError: the history up to the row, or since its last gap, is too short.
            DataError: a bar of it is impossible.
        """
        if end >= self.defect_from:
            raise DataError(self.defect, hint="b3dist check lists such bars (impossible_bar)")
        needed, found = self.warm_up + self.lookback, end + 1
        if found >= needed:
            since = int(np.searchsorted(self.gaps, self.gaps[end]))
            needed, found = self.lookback, end + 1 - since
            where = f"since its last gap, up to {self.sessions[end]}"
            meaning = f"{needed}, one window"
        else:
            where = f"up to {self.sessions[end]}" if end >= 0 else "up to that session"
            meaning = describe_needed(self.warm_up, self.lookback)
        raise TooFewSessionsError(
            f"{self.ticker} has {found} sessions {where}, expected at least {meaning}", needed=needed, found=found
        )


def describe_needed(warm_up: int, lookback: int) -> str:
    """How many sessions a score takes, and what each is for: the count depends on what is known of the asset."""
    whole = warm_up == INVALID_ROWS
    known = "the asset's whole history is known" if whole else "its earlier history is not known"
    return f"{warm_up + lookback} ({lookback} in the window, {warm_up} before it for the indicators, as {known})"


def make_rows(
    ticker: str,
    columns: Columns,
    *,
    position: Positions,
    basis: float,
    scaler: Scaler,
    data: DataConfig,
    warm_up: int,
) -> AssetRows:
    """Rows of an asset from its bars.

    Args:
        ticker: name used in messages.
        columns: SCORED_COLUMNS, each (rows,), ascending by session.
        position: (rows,) index of each session in the exchange's calendar.
        basis: the anchor's adjustment, on the scale of columns["adjustment"].
        scaler: of the model.
        data: lookback, feature set and gap rule of the model.
        warm_up: rows before a window's first one that its features need.
    """
    defect, defect_from = _first_defect(ticker, columns)
    gaps = count_gaps(position, data.max_gap)
    ends = np.arange(warm_up + data.lookback - 1, defect_from)
    usable = np.zeros(len(position), dtype=bool)
    usable[ends] = gaps[ends] == gaps[ends - data.lookback + 1]
    with np.errstate(all="ignore"):  # beyond a defect anything may come out; those rows are never used
        features = scaler.transform(compute_features(bars_at_basis(columns, basis), data.feature_set))
    return AssetRows(
        ticker=ticker,
        lookback=data.lookback,
        sessions=columns["session"].astype("datetime64[D]"),
        position=position,
        close=columns["close"].astype(np.float64),
        features=features,
        gaps=gaps,
        usable=usable,
        warm_up=warm_up,
        defect=defect,
        defect_from=defect_from,
    )


def rows_of_lake(
    ticker: str, columns: Columns, calendar: npt.NDArray[np.datetime64], model: ReleasedModel, data: DataConfig
) -> AssetRows:
    """Rows of an asset from its whole history in a lake; columns as for `make_rows`, calendar as of `Lake.calendar`."""
    return make_rows(
        ticker,
        columns,
        position=np.searchsorted(calendar, columns["session"]),
        basis=float(adjustment_at(columns["session"], columns["adjustment"], np.datetime64(model.anchor))),
        scaler=model.scaler,
        data=data,
        warm_up=INVALID_ROWS,
    )


def adjustment_at(
    sessions: npt.NDArray[np.datetime64], adjustment: Array, when: npt.NDArray[np.datetime64] | np.datetime64
) -> Any:
    """An asset's adjustment on any days: that of its last bar at or before each, of the first one before all bars.

    A share event's ex-date is a session of the asset, so nothing changes between two bars.
    """
    row = np.searchsorted(sessions, when, side="right") - 1
    return adjustment[np.maximum(row, 0)]


def read_columns(lake: Lake, tickers: Collection[str]) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]]]]:
    """SCORED_COLUMNS of each ticker that the lake holds, in alphabetical order."""
    for chunk in itertools.batched(sorted(tickers), TICKERS_AT_ONCE):
        frame = lake.bars_of(chunk, ("ticker", *SCORED_COLUMNS))
        codes, names = pd.factorize(frame["ticker"])  # ascending: the bars are sorted by ticker
        borders = np.cumsum(np.bincount(codes, minlength=len(names)))
        columns = _as_arrays(frame)
        parts = {name: np.split(values, borders[:-1]) for name, values in columns.items()}
        for code, ticker in enumerate(names):
            yield str(ticker), {name: values[code] for name, values in parts.items()}


def _as_arrays(frame: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    arrays = {name: frame[name].to_numpy() for name in SCORED_COLUMNS}
    arrays["session"] = arrays["session"].astype("datetime64[D]")
    return arrays


def _first_defect(ticker: str, columns: Columns) -> tuple[str, int]:
    """What is wrong with the first bar whose open or close no feature can be computed from, and its row."""
    bad = ~((columns["open"] > 0) & (columns["close"] > 0))
    if not bad.any():
        return "", len(bad)
    row = int(np.argmax(bad))
    name = "close" if not columns["close"][row] > 0 else "open"
    return (
        f"{ticker}'s {name} on {columns['session'][row]} is {columns[name][row]:g}, expected a price above 0;"
        " sessions from then on cannot be scored",
        row,
    )
