"""The lake: all bars of the exchange, adjusted, in Parquet; read here, written by `ingest`."""

import difflib
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from b3dist.data.lake.manifest import Manifest, read_manifest
from b3dist.data.lake.yearfiles import YearFile, file_errors, sort_order
from b3dist.data.schema import BARS
from b3dist.errors import LakeError

_BAR_COLUMNS: Final = tuple(BARS.names)


class Lake:
    """A lake as its manifest described it when it was opened.

    An ingest that runs meanwhile is not seen, and does not disturb: the files of this generation stay until the one
    after the next is committed.

    Raises:
        LakeError: there is no lake, it is damaged or of another version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest: Manifest
        self.manifest_hash: str
        """sha256 (hex) of manifest.json: names this content of the lake."""
        self.manifest, self.manifest_hash = read_manifest(self.path)
        self._positions = self._read(self.manifest.index["positions"]).to_pandas(date_as_object=False)
        self._rows_of = self._positions.groupby("ticker", sort=True).indices
        self._files: dict[str, YearFile] = {}

    def tickers(self) -> pd.DataFrame:
        """Every ticker: ticker, num_sessions, first_session, last_session (datetime64[s]), in order of tickers."""
        table = (
            self._positions.groupby("ticker", sort=True)
            .agg(
                num_sessions=("num_rows", "sum"),
                first_session=("first_session", "min"),
                last_session=("last_session", "max"),
            )
            .reset_index()
        )
        table = table.astype({"first_session": "datetime64[s]", "last_session": "datetime64[s]"})
        return pd.DataFrame(table)

    def calendar(self) -> NDArray[np.datetime64]:
        """All exchange sessions in the lake, ascending: (sessions,) datetime64[D]."""
        sessions = self._read(self.manifest.index["sessions"])["session"]
        calendar: NDArray[np.datetime64] = np.sort(sessions.to_numpy().astype("datetime64[D]"))
        return calendar

    def holders(self) -> dict[date, str]:
        """The ingested file (its sha256) that holds each session."""
        sessions = self._read(self.manifest.index["sessions"], columns=["session", "sha256"])
        return dict(zip(sessions["session"].to_pylist(), sessions["sha256"].to_pylist(), strict=True))

    def num_bars_of_files(self) -> Counter[str]:
        """How many of the lake's bars each ingested file (its sha256) gave."""
        holders, num_bars = self.holders(), Counter[str]()
        for file in self.manifest.parquet_files:
            for entry in pc.value_counts(self._read(file, columns=["session"])["session"]).to_pylist():
                num_bars[holders[entry["values"]]] += entry["counts"]
        return num_bars

    def events(self) -> pd.DataFrame:
        """Share events applied in `adjustment`: ticker, ex_date (datetime64[s]), factor, mark."""
        events = self._read(self.manifest.index["events"]).to_pandas(date_as_object=False)
        return pd.DataFrame(events.astype({"ex_date": "datetime64[s]"}))

    def bars(self, ticker: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One asset's bars, ascending by session (datetime64[s]); prices per share as traded.

        Args:
            ticker: as in `tickers()`; of a renamed asset the new one.
            columns: columns of schema.BARS in the order wanted; None: all.

        Raises:
            LakeError: the lake has no such ticker, or a file of it is gone or damaged.
        """
        if ticker not in self._rows_of:
            nearest = difflib.get_close_matches(ticker.upper(), self._rows_of, n=3)
            hint = f"did you mean {', '.join(nearest)}?" if nearest else "`b3dist fleet` trains every ticker there is"
            raise LakeError(f"{self.path} has no bars of {ticker}", hint=hint)
        wanted = self._known(columns)
        parts = []
        for row in self._rows_of[ticker]:
            file, first, count = (self._positions[name].iat[row] for name in ("file", "first_row", "num_rows"))
            with file_errors(self.path / file):
                parts.append(self._year(file).rows(int(first), int(count), wanted))
        return _to_frame(pa.concat_tables(parts))

    def bars_of(self, tickers: Collection[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The bars of some tickers, sorted by ticker, then session; columns as in `bars`.

        Of each file the stretch from the first ticker to the last is read in one go, so this is fast for neighbours in
        the alphabet and for most of the lake. Tickers that the lake does not have are left out.
        """
        wanted = self._known(columns)
        read = list(dict.fromkeys(["ticker", "session", *wanted]))
        positions = self._positions[self._positions["ticker"].isin(list(tickers))]
        parts = [BARS.empty_table().select(read)]
        for file, held in positions.groupby("file", sort=True):
            first, stop = int(held["first_row"].min()), int((held["first_row"] + held["num_rows"]).max())
            with file_errors(self.path / str(file)):
                stretch = self._year(str(file)).rows(first, stop - first, read)
            spans = zip(held["first_row"] - first, held["num_rows"], strict=True)
            parts.extend(stretch.slice(int(start), int(count)) for start, count in spans)
        table = pa.concat_tables(parts)
        table = table.take(pa.array(sort_order(table)))
        return _to_frame(table.select(wanted))

    def all_bars(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The bars of all tickers, sorted by ticker, then session; columns as in `bars`."""
        wanted = self._known(columns)
        read = list(dict.fromkeys(["ticker", "session", *wanted]))
        parts = [self._read(file, columns=read) for file in self.manifest.parquet_files]
        table = pa.concat_tables(parts) if parts else BARS.empty_table().select(read)
        table = table.take(pa.array(sort_order(table)))
        return _to_frame(table.select(wanted))

    def _known(self, columns: Sequence[str] | None) -> list[str]:
        wanted = list(columns) if columns is not None else list(_BAR_COLUMNS)
        unknown = [name for name in wanted if name not in _BAR_COLUMNS]
        if unknown:
            raise LakeError(f"bars have no column {', '.join(unknown)}; they have {', '.join(_BAR_COLUMNS)}")
        return wanted

    def _year(self, file: str) -> YearFile:
        if file not in self._files:
            with file_errors(self.path / file):
                self._files[file] = YearFile(self.path / file)
        return self._files[file]

    def _read(self, file: str, columns: list[str] | None = None) -> pa.Table:
        with file_errors(self.path / file):
            # Not pq.read_table: it would take a folder named year=2014 for a column.
            return pq.ParquetFile(self.path / file).read(columns=columns)


def _to_frame(table: pa.Table) -> pd.DataFrame:
    types = [pa.timestamp("s") if field.type == pa.date32() else field.type for field in table.schema]
    timed = table.cast(pa.schema(list(zip(table.column_names, types, strict=True))))
    return pd.DataFrame(timed.to_pandas())
