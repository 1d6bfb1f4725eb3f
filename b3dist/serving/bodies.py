"""Request bodies: JSON strictly by schema, Arrow streams strictly by column; nothing in them can crash the server."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from b3dist.data.features import INPUT_COLUMNS
from b3dist.serving.arrow_messages import refuse_unsound_messages
from b3dist.serving.limits import MAX_BARS, MAX_TICKER_LENGTH, MAX_TICKERS
from b3dist.serving.problems import ARROW, JSON, Refusal
from b3dist.serving.schemas import ScoreRequest

BarColumns = dict[str, np.ndarray]
"""`session` (rows,) datetime64[D] and INPUT_COLUMNS, each (rows,) float64."""

_COLUMNS = ("ticker", "session", *INPUT_COLUMNS)


def content_type(request: HttpRequest) -> str:
    """The media type of a request's body without parameters; JSON if none is named.

    Raises:
        Refusal: 415, it is neither JSON nor an Arrow stream.
    """
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type not in (JSON, ARROW):
        raise Refusal(
            415,
            f"the body's content type is {media_type[:80] or 'empty'!r}, expected {JSON}",
            hint=f"send the header Content-Type: {JSON} (/v1/score also takes {ARROW})",
        )
    return media_type


async def read_body(request: HttpRequest) -> bytes:
    """The whole body.

    Raises:
        Refusal: 413, it is over the limit; 400, the client went away.
    """
    try:
        return await request.body()
    except ClientDisconnect:
        raise Refusal(400, "the client went away before the body was complete") from None


async def read_json[M: BaseModel](request: HttpRequest, model: type[M]) -> M:
    """The body as `model`; only what its schema says, in JSON's own types.

    Raises:
        Refusal: 415 for another content type, 422 naming the first field at fault.
    """
    if content_type(request) != JSON:
        raise Refusal(415, f"this route takes {JSON} only", hint=f"send the header Content-Type: {JSON}")
    return parse_json(await read_body(request), model)


def parse_json[M: BaseModel](body: bytes, model: type[M]) -> M:
    """A body as `model`.

    Raises:
        Refusal: 422 naming the first field at fault.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise refusal_of(detail["loc"], detail["msg"]) from None


def refusal_of(location: Sequence[str | int], complaint: str) -> Refusal:
    """What a schema has to say against the value at a location."""
    field = _visible(".".join(str(part) for part in location))
    rows = [part for part in location if isinstance(part, int)]
    facts: dict[str, Any] = {"field": field} if field else {}
    if rows:
        facts["row"] = rows[-1]
    message = _visible(f"{field}: {complaint}" if field else complaint)
    return Refusal(422, message, hint="the schema of this route is at /docs", facts=facts)


def bars_of_json(request: ScoreRequest) -> dict[str, BarColumns]:
    """Ticker -> columns.

    Raises:
        Refusal: 422, an asset's lists differ in length.
    """
    columns_of = {}
    for ticker, bars in request.bars.items():
        columns = {name: np.asarray(getattr(bars, name), dtype=np.float64) for name in INPUT_COLUMNS}
        columns["session"] = np.asarray(bars.session, dtype="datetime64[D]")
        for name, values in columns.items():
            if len(values) != len(bars.session):
                raise Refusal(
                    422,
                    f"bars.{ticker}.{name} has {len(values)} entries, expected {len(bars.session)} as session has",
                    facts={"ticker": ticker, "field": name},
                )
        columns_of[ticker] = columns
    return columns_of


def bars_of_arrow(body: bytes) -> dict[str, BarColumns]:
    """Ticker -> columns of an Arrow stream with ticker, session and the bars' columns, in any order of tickers.

    Raises:
        Refusal: 422, it is no sound stream, or a column is missing, unknown, of a wrong type or holds nulls.
    """
    with _arrow_errors():
        refuse_unsound_messages(body)
        with pa.ipc.open_stream(body) as reader:
            _refuse_schema(reader.schema)
            batches = []
            for batch in reader:
                batch.validate(full=True)  # offsets that lie would be read past the body's end
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
        columns = {name: _plain_column(table, name) for name in _COLUMNS}
    return _by_ticker(columns)


@contextlib.contextmanager
def _arrow_errors() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise Refusal(
            422, _visible(f"the body is no sound Arrow stream: {error}"), hint="write it with pyarrow.ipc.new_stream"
        ) from None


def _refuse_schema(schema: pa.Schema) -> None:
    names = schema.names
    if sorted(names) != sorted(_COLUMNS):
        missing = [name for name in _COLUMNS if name not in names]
        unknown = [name for name in names if name not in _COLUMNS]
        fault = (missing or unknown or names)[0]
        raise Refusal(
            422,
            _visible(f"expected each of the columns {', '.join(_COLUMNS)} once, got {', '.join(names) or 'none'}"),
            facts={"field": _visible(fault)},
        )
    for field in schema:
        if not _is_usable(field.name, field.type):
            expected = {"ticker": "strings", "session": "dates"}.get(field.name, "numbers")
            raise Refusal(
                422,
                _visible(f"the column {field.name} holds {field.type}, expected {expected}"),
                facts={"field": field.name},
            )


def _is_usable(name: str, kind: pa.DataType) -> bool:
    if name == "ticker":
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))
    if name == "session":
        return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _plain_column(table: pa.Table, name: str) -> np.ndarray:
    """A column without nulls as NumPy: strings, days or float64."""
    column = table[name]
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise Refusal(422, f"{name} is null in row {row}, expected a value", facts={"field": name, "row": row})
    if name == "ticker":
        values: np.ndarray = column.cast(pa.string()).to_numpy()
    elif name == "session":
        values = column.cast(pa.date32()).to_numpy().astype("datetime64[D]")
    else:
        values = column.cast(pa.float64(), safe=False).to_numpy()
    return values


def _by_ticker(columns: BarColumns) -> dict[str, BarColumns]:
    """The rows of each ticker in the order they came."""
    tickers, which, counts = np.unique(columns["ticker"].astype(str), return_inverse=True, return_counts=True)
    if not 1 <= len(tickers) <= MAX_TICKERS:
        raise Refusal(
            422, f"the body has {len(tickers)} tickers, expected 1 to {MAX_TICKERS}", facts={"field": "ticker"}
        )
    rows_of = np.split(np.argsort(which, kind="stable"), np.cumsum(counts)[:-1])
    found = {}
    for name, rows in zip(tickers.tolist(), rows_of, strict=True):
        if not 1 <= len(name) <= MAX_TICKER_LENGTH or len(rows) > MAX_BARS:
            raise Refusal(
                422,
                _visible(
                    f"the ticker {name[:MAX_TICKER_LENGTH]!r} has {len(name)} characters and {len(rows)} rows,"
                    f" expected at most {MAX_TICKER_LENGTH} and {MAX_BARS}"
                ),
                facts={"field": "ticker"},
            )
        found[name] = {column: values[rows] for column, values in columns.items() if column != "ticker"}
    return found


def _visible(text: str) -> str:
    """At most 500 characters that any terminal and log can show."""
    return "".join(char if char.isprintable() else "�" for char in text[:500])
