"""Every answer that is no 200 has one shape: {error, hint, ...facts}, as the command line's --json has it."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from b3dist.errors import B3distError, BadBarError, DataError, TooFewSessionsError, UnknownTickerError

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
RELEASE_HEADER = "X-Release-Id"
_ABSOLUTE = re.compile(r"""(?<![\w.:/$}])/[^\s'"`,;:()\[\]{}<>]+""")
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}


class Refusal(B3distError):
    """A request is refused; `status` says how, `facts` what a program can act on.

    Args:
        status: HTTP status, 4xx or 503.
        message: what is wrong with the request, and where.
        hint: what the caller can do.
        facts: further keys of the answer: needed, found, ticker, nearest, field, row.
    """

    def __init__(self, status: int, message: str, *, hint: str = "", facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.facts = dict(facts or {})


def without_folders(text: str, folders: Iterable[str]) -> str:
    """A message without where on the server things are: of each path the last name, below `folders` what follows.

    Args:
        text: written for the server's own eyes.
        folders: paths whose own last name may be shown; `$NAME` stands for an environment variable.
    """
    named = [os.path.expandvars(folder) for folder in folders if folder and "\0" not in folder]
    known = {form for folder in named for form in (folder, os.path.realpath(folder))}
    for folder in sorted(known, key=len, reverse=True):
        if len(Path(folder).parts) > 1:
            text = text.replace(folder.rstrip("/"), Path(folder).name)
    return _ABSOLUTE.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], text)


def visible(text: str) -> str:
    """At most 500 characters that any terminal and log can show."""
    return "".join(char if char.isprintable() else "�" for char in text[:500])


def json_response(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; NaN and infinity, which JSON does not have, are refused."""
    body = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status_code=status, headers=headers, media_type=JSON)


def problem_response(error: B3distError, scope: Scope) -> Response:
    """The answer to an error, naming the release that the request came to."""
    status, facts = _status_and_facts(error)
    release_id = scope.get("state", {}).get("release_id")
    headers = dict(_HEADERS.get(status, {}))
    if release_id is not None:
        headers[RELEASE_HEADER] = release_id
    content: dict[str, Any] = {"error": error.message, "hint": error.hint, **facts, "release_id": release_id}
    return json_response(content, status=status, headers=headers)


def _status_and_facts(error: B3distError) -> tuple[int, dict[str, Any]]:
    if isinstance(error, Refusal):
        return error.status, error.facts
    if isinstance(error, UnknownTickerError):
        return 404, {}
    if isinstance(error, TooFewSessionsError):
        return 422, {"needed": error.needed, "found": error.found}
    if isinstance(error, BadBarError):  # the field in the form in which a schema says it
        where = f"bars.{error.ticker}.{error.field}.{error.row}"
        return 422, {"ticker": error.ticker, "field": where, "row": error.row}
    if isinstance(error, DataError):
        return 422, {}
    return 500, {}
