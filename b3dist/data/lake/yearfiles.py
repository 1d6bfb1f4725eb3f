"""The lake's bar files, one per year: sorted, in small row groups, with an index of where each ticker's rows are."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from b3dist.data.schema import BARS
from b3dist.errors import LakeError

STORED: Final = BARS.append(pa.field("traded_as", pa.string()))
"""Columns of a bar file; `traded_as` is the ticker in COTAHIST where a rename joined the bar to another one."""

ROW_GROUP_ROWS: Final = 2048
"""A ticker's year (250 bars) lies in one or two row groups; a year of the exchange makes some 50 of them."""

POSITIONS: Final = pa.schema(
    [
        ("ticker", pa.string()),
        ("file", pa.string()),  # relative to the lake
        ("first_row", pa.int64()),
        ("num_rows", pa.int64()),
        ("first_session", pa.date32()),
        ("last_session", pa.date32()),
    ]
)
"""Where a ticker's bars lie; sorted by file, then ticker."""

_TEXT_COLUMNS: Final = [field.name for field in STORED if field.type == pa.string()]


def sort_order(bars: pa.Table | pd.DataFrame, *, by: str = "ticker") -> NDArray[np.int64]:
    """Row numbers by `by`, then session; of several rows with both the same only the last is kept."""
    keys = bars.select([by, "session"]).to_pandas(date_as_object=False) if isinstance(bars, pa.Table) else bars
    codes, names = pd.factorize(keys[by])
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(np.asarray(names, dtype=object), kind="stable")] = np.arange(len(names))
    days = pd.to_datetime(keys["session"]).to_numpy().astype("datetime64[D]").astype(np.int64)
    key = rank[codes] * (1 << 32) + days
    order: NDArray[np.int64] = np.argsort(key, kind="stable")
    if len(order):
        last_of_key = np.append(np.diff(key[order]) != 0, [True])
        order = order[last_of_key]
    return order


def write_year(path: Path, bars: pa.Table) -> None:
    """Write sorted bars durably.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, bars.cast(STORED), row_group_size=ROW_GROUP_ROWS, use_dictionary=_TEXT_COLUMNS)


def write_durably(path: Path, table: pa.Table, **options: object) -> None:
    """Write a Parquet file and wait until it is on disk.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("wb") as stream:
        pq.write_table(table, stream, compression="zstd", **options)
        stream.flush()
        os.fsync(stream.fileno())


def positions_of(bars: pa.Table, *, file: str) -> pa.Table:
    """Index entries of a year's sorted bars."""
    tickers = bars["ticker"].to_pandas().to_numpy(dtype=object)
    first = np.flatnonzero(np.append([True], tickers[1:] != tickers[:-1])[: len(tickers)])
    stop = np.append(first[1:], len(tickers))[: len(first)]
    sessions = bars["session"]
    return pa.table(
        [
            pa.array(tickers[first], pa.string()),
            pa.array([file] * len(first), pa.string()),
            first,
            stop - first,
            sessions.take(pa.array(first)),
            sessions.take(pa.array(stop - 1)),
        ],
        schema=POSITIONS,
    )


class YearFile:
    """Reads slices of one bar file; its footer is parsed once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._metadata = pq.read_metadata(path)

    def rows(self, first_row: int, num_rows: int, columns: Sequence[str]) -> pa.Table:
        """Some neighbouring rows: only the row groups they lie in are read."""
        first_group = first_row // ROW_GROUP_ROWS
        last_group = (first_row + num_rows - 1) // ROW_GROUP_ROWS
        with pq.ParquetFile(self._path, metadata=self._metadata) as file:
            groups = file.read_row_groups(
                list(range(first_group, last_group + 1)), columns=list(columns), use_threads=False
            )
        return groups.slice(first_row - first_group * ROW_GROUP_ROWS, num_rows)


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn a missing or broken Parquet file into a LakeError.

    Raises:
        LakeError: the file is gone or damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise LakeError(
            f"{path} is gone: the lake was changed twice since it was opened, or damaged",
            hint="open it again; if that fails, ingest the files into a new lake",
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise LakeError(f"{path} is damaged: {error}", hint="ingest the files into a new lake") from error
