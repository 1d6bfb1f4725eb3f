"""/healthz and /readyz: for load balancers and people who wait; open even where a token is required."""

from fastapi import APIRouter, Request, Response

from b3dist.serving.catalogue import Catalogues
from b3dist.serving.problems import json_response
from b3dist.serving.routes.responses import catalogue_of, errors
from b3dist.serving.schemas import AliveAnswer, ReadyAnswer


def health_routes(catalogues: Catalogues) -> APIRouter:
    """Routes that tell the state of a replica."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", response_model=AliveAnswer, summary="Alive")
    async def healthz() -> Response:
        """200 as long as the process answers, whatever it has loaded."""
        return json_response({"status": "alive"})

    @router.get("/readyz", response_model=ReadyAnswer, responses={503: errors()[503]}, summary="Ready")
    async def readyz(request: Request) -> Response:
        """200 once a release is verified and warm; 503, and why, until then."""
        catalogue = catalogue_of(request, catalogues)
        return json_response(
            {
                "status": "ready",
                "release_id": catalogue.release_id,
                "lake_manifest_hash": catalogue.serving.lake.manifest_hash,
                "last_session": catalogue.resolve(None).isoformat(),
                "not_taken_over": catalogues.holder.shown_error,
            }
        )

    # Load balancers probe with HEAD too; the documents leave it out, as it is GET without its body.
    router.add_api_route("/healthz", healthz, methods=["HEAD"], include_in_schema=False)
    router.add_api_route("/readyz", readyz, methods=["HEAD"], include_in_schema=False)
    return router
