"""Bars as an Arrow stream, strictly by column; nothing in it can crash the server or make it allocate much."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from b3dist.data.features import INPUT_COLUMNS
from b3dist.serving.arrow_messages import refuse_unsound_messages
from b3dist.serving.bodies import BarColumns
from b3dist.serving.limits import MAX_BARS, MAX_TICKER_LENGTH, MAX_TICKERS
from b3dist.serving.problems import Refusal, visible

_COLUMNS = ("ticker", "session", *INPUT_COLUMNS)
_MAX_DICTIONARY_BYTES = MAX_TICKERS * (4 * MAX_TICKER_LENGTH + 8)
"""A dictionary of tickers: its characters in UTF-8 and an offset each."""


def bars_of_arrow(body: bytes) -> dict[str, BarColumns]:
    """Ticker -> columns of an Arrow stream with ticker, session and the bars' columns, in any order of tickers.

    Raises:
        Refusal: 422, it is no sound stream, or a column is missing, unknown, of a wrong type or holds nulls.
    """
    with _arrow_errors():
        refuse_unsound_messages(body)
        with pa.ipc.open_stream(body) as reader:
            _refuse_schema(reader.schema)
            batches, num_rows = [], 0
            for batch in reader:
                num_rows += batch.num_rows
                _refuse_large(batch, num_rows)
                batch.validate(full=True)  # offsets that lie would be read past the body's end
                _refuse_tickers(batch)
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
        _refuse_nulls(table)
        columns = {name: _numbers_of(table, name) for name in INPUT_COLUMNS}
        return _by_ticker(table["ticker"], {"session": _days_of(table["session"]), **columns})


@contextlib.contextmanager
def _arrow_errors() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise Refusal(
            422, visible(f"the body is no sound Arrow stream: {error}"), hint="write it with pyarrow.ipc.new_stream"
        ) from None


def _refuse_schema(schema: pa.Schema) -> None:
    names = schema.names
    if sorted(names) != sorted(_COLUMNS):
        missing = [name for name in _COLUMNS if name not in names]
        unknown = [name for name in names if name not in _COLUMNS]
        fault = (missing or unknown or names)[0]
        raise Refusal(
            422,
            visible(f"expected each of the columns {', '.join(_COLUMNS)} once, got {', '.join(names) or 'none'}"),
            facts={"field": visible(fault)},
        )
    for field in schema:
        if not _is_usable(field.name, field.type):
            expected = {"ticker": "strings", "session": "dates"}.get(field.name, "numbers")
            raise Refusal(
                422,
                visible(f"the column {field.name} holds {field.type}, expected {expected}"),
                facts={"field": field.name},
            )


def _is_usable(name: str, kind: pa.DataType) -> bool:
    if name == "ticker":
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))
    if name == "session":
        return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _refuse_large(batch: pa.RecordBatch, num_rows: int) -> None:
    """Refuse by sizes alone what would take long to look at: more rows so far, or more tickers, than any request."""
    if num_rows > MAX_TICKERS * MAX_BARS:
        raise Refusal(422, f"the body has more than {MAX_TICKERS * MAX_BARS} rows", hint="send fewer per request")
    batch.validate()
    tickers = batch["ticker"]
    if isinstance(tickers, pa.DictionaryArray):
        # Every batch is checked with its dictionary, which thousands may share.
        num_bytes = tickers.dictionary.get_total_buffer_size()
        if len(tickers.dictionary) > MAX_TICKERS or num_bytes > _MAX_DICTIONARY_BYTES:
            raise Refusal(
                422,
                f"the dictionary of ticker has {len(tickers.dictionary)} values in {num_bytes} bytes,"
                f" expected at most {MAX_TICKERS} of at most {MAX_TICKER_LENGTH} characters",
                facts={"field": "ticker"},
            )


def _refuse_tickers(batch: pa.RecordBatch) -> None:
    """Refuse tickers that are none before anything is made of them: one long one times many rows is gigabytes."""
    tickers = batch["ticker"]
    if isinstance(tickers, pa.DictionaryArray):
        tickers = tickers.dictionary
        if tickers.null_count:
            raise Refusal(422, "ticker is null in its dictionary, expected a value", facts={"field": "ticker"})
    extremes = pc.min_max(pc.utf8_length(tickers)).as_py()
    shortest, longest = extremes["min"], extremes["max"]
    if longest is not None and not 1 <= shortest <= longest <= MAX_TICKER_LENGTH:
        raise Refusal(
            422,
            f"a ticker has {longest if shortest else 0} characters, expected 1 to {MAX_TICKER_LENGTH}",
            facts={"field": "ticker"},
        )


def _refuse_nulls(table: pa.Table) -> None:
    for name in _COLUMNS:
        column = table[name]
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy()))
            raise Refusal(422, f"{name} is null in row {row}, expected a value", facts={"field": name, "row": row})


def _numbers_of(table: pa.Table, name: str) -> np.ndarray:
    values: np.ndarray = table[name].cast(pa.float64(), safe=False).to_numpy()
    return values


def _days_of(column: pa.ChunkedArray) -> np.ndarray:
    """Days (rows,) of dates, or of midnights by the clock of their own zone."""
    if not pa.types.is_timestamp(column.type):
        dates: np.ndarray = column.cast(pa.date32()).to_numpy().astype("datetime64[D]")
        return dates
    zone = column.type.tz
    instants: np.ndarray = (pc.local_timestamp(column) if zone else column).to_numpy()
    days: np.ndarray = instants.astype("datetime64[D]")
    within = days.astype(instants.dtype) != instants
    if within.any():
        row = int(np.argmax(within))
        raise Refusal(
            422,
            visible(f"session in row {row} is {instants[row]}{f' in {zone}' if zone else ''}, expected no time of day"),
            hint="send session as dates",
            facts={"field": "session", "row": row},
        )
    return days


def _by_ticker(column: pa.ChunkedArray, columns: BarColumns) -> dict[str, BarColumns]:
    """The rows of each ticker, in alphabetical order, in the order they came. Tickers are handled as codes, no text."""
    encoded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.combine_chunks()
    distinct = encoded.dictionary.dictionary_encode()  # a sender's own dictionary may name a ticker twice
    codes = distinct.indices.to_numpy()[encoded.indices.to_numpy()]
    present, which, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if not 1 <= len(present) <= MAX_TICKERS:
        raise Refusal(
            422, f"the body has {len(present)} tickers, expected 1 to {MAX_TICKERS}", facts={"field": "ticker"}
        )
    names = distinct.dictionary.take(pa.array(present)).to_pylist()
    found = {}
    rows_of = np.split(np.argsort(which, kind="stable"), np.cumsum(counts)[:-1])
    for name, rows in sorted(zip(names, rows_of, strict=True), key=lambda pair: pair[0]):
        if len(rows) > MAX_BARS:
            raise Refusal(
                422,
                visible(f"the ticker {name!r} has {len(rows)} rows, expected at most {MAX_BARS}"),
                facts={"field": "ticker"},
            )
        found[name] = {of: values[rows] for of, values in columns.items()}
    return found
