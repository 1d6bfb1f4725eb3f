"""What a lake's bars become when files are added: which file holds which session, renames, adjustments."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from b3dist.data.adjust import EVENT_COLUMNS, adjustment_factors, find_share_events, override_events, read_events
from b3dist.data.lake.manifest import Manifest, SourceFile
from b3dist.data.lake.spool import Spool
from b3dist.data.lake.yearfiles import POSITIONS, STORED, file_errors, sort_order
from b3dist.data.renames import apply_renames, read_renames

_SESSIONS: Final = pa.schema(
    [("session", pa.date32()), ("generated", pa.date32()), ("records", pa.int64()), ("sha256", pa.string())]
)
"""Every session in the lake and the file that holds it."""

_EVENTS: Final = pa.schema(
    [("ticker", pa.string()), ("ex_date", pa.date32()), ("factor", pa.float64()), ("mark", pa.string())]
)

_JUDGED: Final = [
    "traded_as",
    "ticker",
    "session",
    "open",
    "close",
    "quote_factor",
    "ex_mark",
    "distribution_number",
    "isin",
    "class",
    "adjustment",
]
"""Columns read of all years at once: share events are found with the whole market as control."""


class SessionOwners:
    """Which file holds each session: the one with the highest rank, so that the order of ingest does not matter."""

    def __init__(self, table: pa.Table | None) -> None:
        self._ranks: dict[date, tuple[date, int, str]] = {}
        for row in table.to_pylist() if table is not None else []:
            self._ranks[row["session"]] = (row["generated"], row["records"], row["sha256"])
        self.changed: set[date] = set()
        """Sessions that went to another file since."""

    def claim(self, source: SourceFile, sessions: Sequence[date]) -> None:
        """Give a file those of its sessions that no file of higher rank holds."""
        for session in sessions:
            holder = self._ranks.get(session)
            if holder is None or source.rank > holder:
                self._ranks[session] = source.rank
                self.changed.add(session)

    def held_by(self, source: SourceFile) -> set[date]:
        """The sessions that a file holds."""
        return {session for session, rank in self._ranks.items() if rank == source.rank}

    def to_table(self) -> pa.Table:
        """One row per session, ascending."""
        rows = [
            dict(zip(_SESSIONS.names, (session, *rank), strict=True)) for session, rank in sorted(self._ranks.items())
        ]
        return pa.Table.from_pylist(rows, schema=_SESSIONS)


class History:
    """The bars of all years on their way from one generation of a lake to the next.

    Whole bars are kept of the years that change only (beyond some size on disk, see Spool); of the others just the
    columns that share events are found by.
    """

    def __init__(self, lake: Path, manifest: Manifest, *, spool: Spool) -> None:
        self._lake = lake
        self._manifest = manifest
        self._spool = spool
        self._files = {int(file.split("year=")[1][:4]): file for file in manifest.parquet_files}
        self._merged: set[int] = set()
        self._judged: pd.DataFrame = STORED.empty_table().select(_JUDGED).to_pandas()
        self._events: pd.DataFrame = pd.DataFrame(columns=list(EVENT_COLUMNS))
        self._rows_of_year: dict[int, NDArray[np.int64]] = {}
        self.owners = SessionOwners(self._index("sessions"))

    @property
    def years(self) -> list[int]:
        """Years with bars, ascending."""
        return sorted(self._rows_of_year)

    @property
    def num_by_class(self) -> dict[str, int]:
        """Bars by class, most frequent first."""
        return {str(name): int(count) for name, count in self._judged["class"].value_counts().items()}

    @property
    def events_table(self) -> pa.Table:
        """The share events that `adjustment` applies."""
        columns = [pa.array(self._events[field.name], from_pandas=True).cast(field.type) for field in _EVENTS]
        return pa.table(columns, schema=_EVENTS)

    def merge(self, added: Sequence[tuple[SourceFile, Spool]]) -> None:
        """Lay the staged bars of new files over the lake's, session by session.

        Every file's sessions must have been claimed before.

        Raises:
            LakeError: a file of the lake is gone or damaged.
            StorageError: no room on disk.
        """
        changed, parts = pa.array(sorted(self.owners.changed), pa.date32()), []
        held = [pa.array(sorted(self.owners.held_by(source)), pa.date32()) for source, _ in added]
        changed_years = {session.year for session in self.owners.changed}
        for year in sorted(self._files.keys() | changed_years):
            if year not in changed_years:
                judged = self._read(self._files[year], _JUDGED)
            else:
                tables = [STORED.empty_table()]
                if year in self._files:
                    old = self._read(self._files[year])
                    tables.append(old.filter(pc.invert(pc.is_in(old["session"], changed))))
                for (_, spool), sessions in zip(added, held, strict=True):
                    tables += [
                        _as_stored(bars.filter(pc.is_in(bars["session"], sessions))) for bars in spool.take(year)
                    ]
                merged = pa.concat_tables(tables)
                merged = merged.take(pa.array(sort_order(merged, by="traded_as")))
                self._spool.add(year, merged)
                self._merged.add(year)
                judged = merged.select(_JUDGED)
            parts.append(judged.to_pandas(date_as_object=False).assign(year=year, row=np.arange(len(judged))))
        if parts:
            self._judged = pd.concat(parts, ignore_index=True)

    def adjust(self, inputs: Mapping[str, Path]) -> None:
        """Join renamed tickers, find the share events and work out every bar's adjustment.

        Args:
            inputs: the user's `events` and `renames`, if there are any.

        Raises:
            DataError: a file is unreadable, or a rename would mix two assets.
        """
        bars = self._judged.rename(columns={"ticker": "old_ticker", "adjustment": "old_adjustment"})
        bars["ticker"] = bars["traded_as"]
        bars["session"] = pd.to_datetime(bars["session"]).astype("datetime64[s]")
        if not len(bars):
            return
        if "renames" in inputs:
            bars = apply_renames(bars, read_renames(inputs["renames"]))
            bars = bars.drop_duplicates(["ticker", "session"], keep="last", ignore_index=True)
        else:
            bars = bars.take(sort_order(bars))
            bars = bars.reset_index(drop=True)
        events = find_share_events(bars)
        if "events" in inputs:
            events = override_events(events, read_events(inputs["events"]))
        bars["adjustment"] = adjustment_factors(bars, events)
        self._judged, self._events = bars, events
        year_of_row = bars["year"].to_numpy()
        self._rows_of_year = {int(year): np.flatnonzero(year_of_row == year) for year in np.unique(year_of_row)}

    def unchanged_file(self, year: int) -> str | None:
        """The lake's file of a year if it can stay as it is."""
        if year in self._merged:
            return None
        bars = self._judged.iloc[self._rows_of_year[year]]
        same = (
            np.array_equal(bars["row"], np.arange(len(bars)))
            and np.array_equal(bars["adjustment"], bars["old_adjustment"])
            and bool((bars["ticker"] == bars["old_ticker"]).all())
        )
        return self._files[year] if same else None

    def bars(self, year: int) -> pa.Table:
        """A year's bars as they shall be written; each changed year can be asked for once.

        Raises:
            LakeError: the lake's file is gone or damaged.
        """
        whole = pa.concat_tables(self._spool.take(year)) if year in self._merged else self._read(self._files[year])
        judged = self._judged.iloc[self._rows_of_year[year]]
        whole = whole.take(pa.array(judged["row"].to_numpy()))
        for name in ("ticker", "adjustment"):
            at = STORED.get_field_index(name)
            whole = whole.set_column(at, STORED.field(at), pa.array(judged[name]).cast(STORED.field(at).type))
        return whole

    def positions_in(self, file: str) -> pa.Table:
        """The index entries of a live bar file."""
        positions = self._index("positions")
        assert positions is not None
        return positions.filter(pc.equal(positions["file"], file)).cast(POSITIONS)

    def _index(self, name: str) -> pa.Table | None:
        return self._read(self._manifest.index[name]) if name in self._manifest.index else None

    def _read(self, file: str, columns: list[str] | None = None) -> pa.Table:
        with file_errors(self._lake / file):
            return pq.ParquetFile(self._lake / file).read(columns=columns)


def _as_stored(bars: pa.Table) -> pa.Table:
    return bars.append_column(STORED.field("traded_as"), bars["ticker"])
