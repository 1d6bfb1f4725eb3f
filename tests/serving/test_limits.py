"""Bodies over the limit are refused, whatever they announce."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from b3dist.errors import ConfigError
from b3dist.serving.holder import Holder
from b3dist.serving.limits import Limits
from tests.serving.clients import client_of, make_api

LIMIT = 2_000
HEADERS = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def narrow(holder: Holder) -> TestClient:
    """A client of an endpoint that takes 2,000 bytes."""
    return client_of(make_api(holder, limits=Limits(max_body_bytes=LIMIT)))


def padded(size: int) -> bytes:
    """A sound request of a size."""
    body = b'{"ticker":"SIMA3"'
    return body + b" " * (size - len(body) - 1) + b"}"


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict/bulk", "/v1/score"])
def test_an_announced_body_over_the_limit_is_413(narrow: TestClient, path: str) -> None:
    """With the limit in the answer."""
    response = narrow.post(path, content=padded(LIMIT + 1), headers=HEADERS)
    assert (response.status_code, response.json()["limit_bytes"]) == (413, LIMIT)


def test_a_chunked_body_over_the_limit_is_413(narrow: TestClient) -> None:
    """It announces nothing, so it is counted as it comes."""

    def chunks() -> Iterator[bytes]:
        for _ in range(1_000):
            yield b" " * 100

    for path in ("/v1/predict", "/v1/predict/bulk", "/v1/score"):
        response = narrow.post(path, content=chunks(), headers=HEADERS)
        assert response.status_code == 413


def test_a_body_of_exactly_the_limit_is_read(narrow: TestClient) -> None:
    """Announced or in chunks."""
    body = padded(LIMIT)
    assert narrow.post("/v1/predict", content=body, headers=HEADERS).status_code == 200
    halves = iter([body[:1_000], body[1_000:]])
    assert narrow.post("/v1/predict", content=halves, headers=HEADERS).status_code == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "", "+5", "1_0"])
def test_a_length_that_is_none_is_400(narrow: TestClient, length: str) -> None:
    """Where the server in front has let it pass; the answer says which header it is."""
    response = narrow.post("/v1/predict", content=padded(100), headers={**HEADERS, "Content-Length": length})
    assert response.status_code == 400
    assert "Content-Length" in response.json()["error"]


@pytest.mark.parametrize("length", ["2001", "9" * 30, "9" * 5_000, "0" * 5_000 + "2001"])
def test_a_length_over_the_limit_is_413_however_it_is_written(narrow: TestClient, length: str) -> None:
    """Python itself reads no number of more than 4,300 digits."""
    response = narrow.post("/v1/predict", content=padded(100), headers={**HEADERS, "Content-Length": length})
    assert response.status_code == 413


def test_a_length_with_leading_zeros_is_read(narrow: TestClient) -> None:
    """It is as small as it says."""
    headers = {**HEADERS, "Content-Length": "0" * 5_000 + "100"}
    assert narrow.post("/v1/predict", content=padded(100), headers=headers).status_code == 200


def test_a_limit_that_no_request_fits_is_refused() -> None:
    """A mistake in the configuration, most likely a unit."""
    with pytest.raises(ConfigError, match="max_body_bytes"):
        Limits(max_body_bytes=16)
