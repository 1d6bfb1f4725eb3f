"""The OpenAPI document: complete, its examples work, and property tests derived from it find no defect."""

from typing import Any

import schemathesis
from starlette.testclient import TestClient

from b3dist.serving.holder import Holder
from tests.serving.clients import client_of, make_api
from tests.serving.property_requests import try_routes

ROUTES = {
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/v1/assets"),
    ("get", "/v1/assets/{ticker}"),
    ("get", "/v1/release"),
    ("post", "/v1/predict"),
    ("post", "/v1/predict/bulk"),
    ("post", "/v1/score"),
}


def document_of(client: TestClient) -> Any:
    """The OpenAPI document."""
    return client.get("/openapi.json").json()


def test_every_route_is_described(client: TestClient) -> None:
    """Routes have a summary and a text; errors have their one shape."""
    document = document_of(client)
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == ROUTES
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["description"]
            if path.startswith("/v1/"):
                assert {"401", "429", "503"} <= operation["responses"].keys()
            for status, response in operation["responses"].items():
                if status != "200":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}


def test_every_reference_of_the_document_leads_somewhere(client: TestClient) -> None:
    """Request bodies are added by hand, so their schemas must be there."""
    document = document_of(client)

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(value) for value in node.values()))
        return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()

    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert {"#/components/schemas/ScoreRequest", "#/components/schemas/Bars"} <= references(document) <= schemas


def test_the_examples_of_the_document_are_answered_with_200(client: TestClient) -> None:
    """Every example body and path parameter, as /docs sends them."""
    tried = 0
    for path, methods in document_of(client)["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            if path != "/v1/release":
                response = client.request(method, path, json=body)
                assert response.status_code == 200, (path, response.text)
                tried += 1
    assert tried == len(ROUTES) - 1


def test_a_token_is_asked_for_in_docs_where_one_is_required(client: TestClient, holder: Holder) -> None:
    """Swagger UI shows its Authorize button for it."""
    assert "securitySchemes" not in document_of(client)["components"]
    document = document_of(client_of(make_api(holder, token=b"abc")))
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == path.startswith("/v1/")


def test_docs_load_nothing_from_elsewhere(client: TestClient) -> None:
    """Scripts, styles and the icon come from this server, and it has them."""
    page = client.get("/docs").text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f'"/docs/assets/{name}"' in page
        assert client.get(f"/docs/assets/{name}").status_code == 200
    assert "http" not in page.replace("http-equiv", "")
    assert '"validatorUrl": null' in page


def test_requests_made_from_the_document_meet_no_defect(holder: Holder) -> None:
    """About 200 requests, sound and unsound; every answer is documented, has its schema, and none is a 5xx."""
    api = make_api(holder)
    assert try_routes(schemathesis.openapi.from_asgi("/openapi.json", api), per_route=45) >= 200
