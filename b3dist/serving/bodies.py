"""Request bodies: their type, and JSON strictly by schema. Arrow streams: `arrow_bars`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from b3dist.data.features import INPUT_COLUMNS
from b3dist.serving.problems import ARROW, JSON, Refusal, visible
from b3dist.serving.schemas import ScoreRequest

BarColumns = dict[str, np.ndarray]
"""`session` (rows,) datetime64[D] and INPUT_COLUMNS, each (rows,) float64."""


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
    field = visible(".".join(str(part) for part in location))
    rows = [part for part in location if isinstance(part, int)]
    facts: dict[str, Any] = {"field": field} if field else {}
    if rows:
        facts["row"] = rows[-1]
    message = visible(f"{field}: {complaint}" if field else complaint)
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
                    facts={"ticker": ticker, "field": f"bars.{ticker}.{name}"},
                )
        columns_of[ticker] = columns
    return columns_of
