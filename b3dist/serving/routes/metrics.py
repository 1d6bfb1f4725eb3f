"""/metrics: what Prometheus scrapes."""

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from b3dist.serving.routes.responses import errors

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def metrics_routes(read_metrics: Callable[[], str]) -> APIRouter:
    """The route that shows a page of metrics; `read_metrics` may block."""
    router = APIRouter(tags=["health"])

    @router.get("/metrics", response_class=PlainTextResponse, responses=errors(), summary="Prometheus metrics")
    async def metrics() -> Response:
        """Requests, latency, batch sizes, release and data age on the node of the replica that answers."""
        return Response(await asyncio.to_thread(read_metrics), headers={"Content-Type": PROMETHEUS})

    return router
