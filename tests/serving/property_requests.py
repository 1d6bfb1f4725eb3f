"""Requests derived from an OpenAPI document, sound and unsound, and what every answer to them must be."""

from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [content_type_conformance, response_schema_conformance]


def try_routes(schema: Any, *, per_route: int, headers: Mapping[str, str] | None = None) -> int:
    """Send requests to every route: no answer is a 5xx, and every answer has a documented type and shape.

    Args:
        schema: a schemathesis schema.
        per_route: requests to each route.
        headers: of every request.

    Returns:
        How many requests were sent.
    """
    sent = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        cases = st.one_of(operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

        @seed(7)
        @settings(max_examples=per_route, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=cases)
        def holds(case: Any) -> None:
            nonlocal sent
            sent += 1
            response = case.call(headers=dict(headers or {}))
            assert response.status_code < 500, response.text
            checks = CHECKS if response.status_code in (405, 415) else [*CHECKS, status_code_conformance]
            case.validate_response(response, checks=checks)

        holds()
    return sent
