"""The HTTP application: routes, gates and errors put together. Knows no Ray; a replica and the tests both run it."""

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from b3dist.errors import B3distError
from b3dist.serving.auth import BearerGate
from b3dist.serving.bodies import refusal_of
from b3dist.serving.catalogue import Catalogues
from b3dist.serving.docs import documented_app
from b3dist.serving.limits import BodyLimit, Limits
from b3dist.serving.problems import RELEASE_HEADER, Refusal, problem_response
from b3dist.serving.routes.assets import asset_routes
from b3dist.serving.routes.health import health_routes
from b3dist.serving.routes.metrics import metrics_routes
from b3dist.serving.routes.predictions import Ask, prediction_routes


def create_api(
    catalogues: Catalogues,
    ask: Ask,
    *,
    read_metrics: Callable[[], str] | None = None,
    token: bytes | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """The application.

    Args:
        catalogues: what is served.
        ask: answers one question of /v1/predict, batched with others where there is a batcher.
        read_metrics: the page of /metrics; None: there is no such route.
        token: what callers must send; None: anybody may ask.
        limits: of requests.
    """
    app = documented_app(catalogues, with_token=token is not None)
    for router in (health_routes(catalogues), asset_routes(catalogues), prediction_routes(catalogues, ask)):
        app.include_router(router)
    if read_metrics is not None:
        app.include_router(metrics_routes(read_metrics))
    app.add_exception_handler(B3distError, _on_own_error)
    app.add_exception_handler(RequestValidationError, _on_bad_parameter)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_defect)
    # The one added last is the first that a request meets.
    app.add_middleware(BodyLimit, max_body_bytes=(limits or Limits()).max_body_bytes)
    if token is not None:
        app.add_middleware(BearerGate, token=token)
    app.add_middleware(ReleaseStamp, catalogues=catalogues)
    return app


class ReleaseStamp:
    """ASGI middleware: every answer names its release in X-Release-Id.

    The request's state holds the release: the current one at first, for answers that come from none (401, 413, an
    unknown path); a route replaces it by the one that it has read and answers from.
    """

    def __init__(self, app: ASGIApp, *, catalogues: Catalogues) -> None:
        self.app = app
        self._holder = catalogues.holder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the header as the answer starts; an answer to HEAD ends with its headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        serving = self._holder.current
        state = scope["state"] = {"release_id": serving.release.release_id if serving else None}

        async def stamped(message: Message) -> None:
            release_id = state["release_id"]
            if message["type"] == "http.response.start" and release_id is not None:
                MutableHeaders(scope=message)[RELEASE_HEADER] = release_id
            if message["type"] == "http.response.body" and scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        await self.app(scope, receive, stamped)


async def _on_own_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, B3distError)
    return problem_response(error, request.scope)


async def _on_bad_parameter(request: Request, error: Exception) -> Response:
    """A query parameter that its schema refuses."""
    assert isinstance(error, RequestValidationError)
    (_where, *location), message = error.errors()[0]["loc"], error.errors()[0]["msg"]
    return problem_response(refusal_of(location, message), request.scope)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """An unknown path, or a method that a path does not have."""
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}", hint="see /docs")
    response = problem_response(refusal, request.scope)
    response.headers.update(error.headers or {})
    return response


async def _on_defect(request: Request, _error: Exception) -> Response:
    """A defect of this program; Starlette raises it on for the log once this is sent."""
    refusal = Refusal(500, "this request met a defect of the server", hint="the replica's log has the traceback")
    return problem_response(refusal, request.scope)
