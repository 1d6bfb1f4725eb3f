"""/docs: Swagger UI from this server alone, and an OpenAPI document whose examples work on what is served."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema

from b3dist import __version__
from b3dist.serving.auth import DOCS_ASSETS
from b3dist.serving.catalogue import Catalogue, Catalogues, Example
from b3dist.serving.problems import JSON, Refusal
from b3dist.serving.schemas import REQUESTS

_DESCRIPTION = """
One model per asset of the Brazilian exchange B3: an action (buy, sell, hold) and the return over the next sessions.
Every answer comes from one release and names it. **No investment advice**: read the model card at `/v1/release` and the
metrics of an asset at `/v1/assets/{ticker}`, which stand beside what costs nothing.
""".strip()
_SCHEMAS = "#/components/schemas/{model}"


def documented_app(catalogues: Catalogues, *, with_token: bool) -> FastAPI:
    """An application without routes yet, with /docs and /openapi.json.

    Args:
        catalogues: where examples come from.
        with_token: whether callers must send a bearer token, which /docs then asks for.
    """
    app = FastAPIOffline(
        title="b3dist",
        version=__version__,
        description=_DESCRIPTION,
        redoc_url=None,
        static_url=DOCS_ASSETS,
        redirect_slashes=False,
        # Without this Swagger UI shows the document's address to a validator on the internet.
        swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
    )
    documents: dict[Catalogue | None, dict[str, Any]] = {}

    def openapi() -> dict[str, Any]:
        try:
            catalogue = catalogues.current()
        except Refusal:
            catalogue = None
        if catalogue not in documents:
            documents.clear()
            documents[catalogue] = _document(app, catalogue, with_token=with_token)
        return documents[catalogue]

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _document(app: FastAPI, catalogue: Catalogue | None, *, with_token: bool) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    components = document.setdefault("components", {})
    _, definitions = models_json_schema([(model, "validation") for model in REQUESTS], ref_template=_SCHEMAS)
    components.setdefault("schemas", {}).update(definitions["$defs"])
    _put_json_first(document)
    if with_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            if path.startswith("/v1/"):
                for operation in operations.values():
                    operation["security"] = [{"token": []}]
    if catalogue is not None and catalogue.example is not None:
        _add_examples(document, catalogue.example)
    return document


def _put_json_first(document: dict[str, Any]) -> None:
    """Swagger UI asks for, and sends, the first content type of a list unless told otherwise."""
    for operations in document["paths"].values():
        for operation in operations.values():
            described = [*operation["responses"].values(), operation.get("requestBody", {})]
            for content in (one["content"] for one in described if "content" in one):
                others = {name: content.pop(name) for name in [*content] if name != JSON}
                content.update(others)


def _add_examples(document: dict[str, Any], example: Example) -> None:
    """Bodies and parameters that are answered with 200 by what is served now."""
    bodies = {
        "/v1/predict": {"ticker": example.ticker, "as_of": None},
        "/v1/predict/bulk": {"tickers": ["*"], "as_of": None},
        "/v1/score": example.body,
    }
    for path, body in bodies.items():
        document["paths"][path]["post"]["requestBody"]["content"][JSON]["example"] = body
    for parameter in document["paths"]["/v1/assets/{ticker}"]["get"]["parameters"]:
        parameter["example"] = example.ticker
