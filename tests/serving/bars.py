"""Bars to send to /v1/score: the lake's own, so that the answer is known."""

from typing import Any

import numpy as np
import pyarrow as pa

from b3dist.data.features import INPUT_COLUMNS
from b3dist.serving.holder import Holder

Columns = dict[str, Any]


def columns_of(holder: Holder, ticker: str, *, last: int = 300) -> Columns:
    """An asset's newest bars as traded: `session` as ISO dates, the rest as floats."""
    assert holder.current is not None
    bars = holder.current.lake.bars(ticker, ["session", *INPUT_COLUMNS]).tail(last)
    columns: Columns = {name: bars[name].astype(float).tolist() for name in INPUT_COLUMNS}
    return {"session": bars["session"].dt.strftime("%Y-%m-%d").tolist(), **columns}


def table_of(columns_by_ticker: dict[str, Columns]) -> pa.Table:
    """The same as the table that an Arrow stream holds."""
    tables = []
    for ticker, columns in columns_by_ticker.items():
        sessions = np.array(columns["session"], dtype="datetime64[D]")
        rest = {name: columns[name] for name in INPUT_COLUMNS}
        tables.append(pa.table({"ticker": [ticker] * len(sessions), "session": sessions, **rest}))
    return pa.concat_tables(tables)


def stream_of(table: pa.Table, *, compression: str | None = None, rows: int | None = None) -> bytes:
    """A table as an Arrow stream, in batches of at most `rows`."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return bytes(sink.getvalue())
