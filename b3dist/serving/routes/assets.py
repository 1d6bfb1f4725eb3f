"""/v1/assets and /v1/release: what is served, and how good it is beside doing nothing."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from b3dist.data.features import WARMUP_SESSIONS
from b3dist.release import ReleasedModel
from b3dist.serving.catalogue import Catalogue, Catalogues
from b3dist.serving.problems import json_response
from b3dist.serving.routes.responses import catalogue_of, errors
from b3dist.serving.schemas import AssetAnswer, AssetQuery, AssetsAnswer, ReleaseAnswer

RELEASE_ROUTE = "/v1/release"


def asset_routes(catalogues: Catalogues) -> APIRouter:
    """Routes that describe what a replica serves."""
    router = APIRouter(tags=["assets"])

    @router.get("/v1/assets", response_model=AssetsAnswer, responses=errors(422), summary="Every asset")
    async def assets(request: Request, query: Annotated[AssetQuery, Query()]) -> Response:
        """The release's assets by ticker, a page at a time."""
        catalogue = catalogue_of(request, catalogues)
        wanted = query.search.strip().upper()
        found = [ticker for ticker in catalogue.serving.release.assets if wanted in ticker.upper()]
        first = (query.page - 1) * query.page_size
        return json_response(
            {
                "release_id": catalogue.release_id,
                "total": len(found),
                "page": query.page,
                "page_size": query.page_size,
                "assets": [_line(catalogue, ticker) for ticker in found[first : first + query.page_size]],
            }
        )

    @router.get(
        "/v1/assets/{ticker}", response_model=AssetAnswer, responses=errors(404, 422), summary="One asset's model"
    )
    async def asset(request: Request, ticker: str) -> Response:
        """Facts of the model that answers for a ticker, and its metrics beside what costs nothing."""
        catalogue = catalogue_of(request, catalogues)
        catalogue.require(ticker)
        return json_response(_describe_asset(catalogue, ticker))

    @router.get(RELEASE_ROUTE, response_model=ReleaseAnswer, responses=errors(), summary="What is served")
    async def release(request: Request) -> Response:
        """The release and the lake that answers come from, with the release's model card."""
        return json_response(_describe_release(catalogue_of(request, catalogues)))

    return router


def _line(catalogue: Catalogue, ticker: str) -> dict[str, Any]:
    """AssetLine."""
    asset, span = catalogue.serving.release.assets[ticker], catalogue.spans.get(ticker)
    return {
        "ticker": ticker,
        "source": asset.source,
        "run_id": asset.run_id,
        "carried_over": asset.carried_over,
        "first_session": span.first.isoformat() if span else None,
        "last_session": span.last.isoformat() if span else None,
        "num_sessions": span.num_sessions if span else 0,
    }


def _describe_asset(catalogue: Catalogue, ticker: str) -> dict[str, Any]:
    """AssetAnswer."""
    release = catalogue.serving.release
    asset = release.assets[ticker]
    group = release.groups[asset.served.group]
    return {
        "release_id": catalogue.release_id,
        **_line(catalogue, ticker),
        "served": _describe_model(asset.served),
        "evaluated": _describe_model(asset.evaluated),
        "label_set": asset.label_set,
        "feature_set": group.data.feature_set,
        "feature_names": list(group.feature_names),
        "lookback": group.data.lookback,
        "horizon": group.data.horizon,
        "hidden_size": group.model.hidden_size,
        "sessions_needed": WARMUP_SESSIONS + group.data.lookback,
        "metrics": asset.metrics,
        "model_card": RELEASE_ROUTE,
    }


def _describe_model(model: ReleasedModel) -> dict[str, Any]:
    return {"model_sha256": model.model_sha256, "anchor": model.anchor.isoformat()}


def _describe_release(catalogue: Catalogue) -> dict[str, Any]:
    """ReleaseAnswer."""
    serving = catalogue.serving
    manifest = serving.release.manifest
    return {
        "release_id": catalogue.release_id,
        "alias": serving.alias,
        "since": serving.since.isoformat(timespec="seconds"),
        "created_at": manifest["created_at"],
        "run_id": manifest["run_id"],
        "refit": manifest["refit"],
        "num_assets": len(serving.release.assets),
        "num_carried_over": sum(asset.carried_over for asset in serving.release.assets.values()),
        "lake_manifest_hash": serving.lake.manifest_hash,
        "trained_on_lake_manifest_hash": manifest["lake_manifest_hash"],
        "first_session": str(serving.scorer.calendar[0]),
        "last_session": catalogue.resolve(None).isoformat(),
        "model_card": catalogue.model_card,
    }
