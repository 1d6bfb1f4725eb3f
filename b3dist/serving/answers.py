"""Scored tables as answers: JSON rows or an Arrow stream."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from b3dist.serving.problems import ARROW, JSON


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """A scored table's rows with JSON's own types; sessions as ISO dates."""
    columns = []
    for column in table.itercolumns():
        text = column.cast(pa.string()) if pa.types.is_date(column.type) else column
        columns.append(text.to_numpy().tolist())
    names = table.column_names
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def wants_arrow(request: HttpRequest) -> bool:
    """Whether the Accept header names the Arrow stream, and prefers it to JSON."""
    weights = {JSON: 0.0, ARROW: 0.0}
    for part in request.headers.get("accept", "").lower().split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        if media_type in weights:
            quality = next((one[2:] for one in parameters if one.startswith("q=")), "1")
            weights[media_type] = _number(quality)
    return weights[ARROW] > 0 and weights[ARROW] >= weights[JSON]


def arrow_response(table: pa.Table, facts: Mapping[str, Any]) -> Response:
    """The table as an Arrow stream; what JSON answers hold beside the rows is in the schema's metadata, as JSON."""
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    stamped = table.replace_schema_metadata(metadata)
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, stamped.schema) as writer:
        writer.write_table(stamped)
    return Response(stream.getvalue().to_pybytes(), media_type=ARROW)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
