"""What the routes have in common in /docs: errors, and bodies that the routes read themselves."""

from typing import Any

from pydantic import BaseModel
from starlette.requests import Request

from b3dist.serving.catalogue import Catalogue, Catalogues
from b3dist.serving.problems import ARROW, JSON
from b3dist.serving.schemas import ErrorAnswer

_ERRORS = {
    401: "No bearer token, or a wrong one.",
    404: "The release has no model of this ticker; `nearest` names similar ones.",
    413: "The body is larger than `limit_bytes`.",
    415: "The body is neither JSON nor, where taken, an Arrow stream.",
    422: "A value is missing, unknown or out of range (`field`, `row`); or too few sessions (`needed`, `found`).",
    429: "Too many requests are queued (sent by Ray Serve, as text). Retry after `Retry-After` seconds.",
    503: "No release is warm yet, or no replica is up. Retry after `Retry-After` seconds.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in (401, *statuses, 429, 503):
        found[status] = {"model": ErrorAnswer, "description": _ERRORS[status]}
    return found


def json_body(model: type[BaseModel], *, or_arrow: str = "") -> dict[str, Any]:
    """`openapi_extra` of a route that reads a body by `model`, or else an Arrow stream described by `or_arrow`."""
    content: dict[str, Any] = {JSON: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    if or_arrow:
        content[ARROW] = {"schema": {"type": "string", "format": "binary", "description": or_arrow}}
    return {"requestBody": {"required": True, "content": content}}


def also_arrow(description: str) -> dict[str, Any]:
    """The 200 of a route that answers in an Arrow stream if asked to."""
    schema = {"type": "string", "format": "binary", "description": description}
    return {
        "description": "JSON, or an Arrow stream if the Accept header asks for it.",
        "content": {ARROW: {"schema": schema}},
    }


def catalogue_of(request: Request, catalogues: Catalogues) -> Catalogue:
    """What a request is answered from; its release's id goes into the answer's header.

    Raises:
        Refusal: 503, nothing is warm yet.
    """
    catalogue = catalogues.current()
    request.state.release_id = catalogue.release_id
    return catalogue
