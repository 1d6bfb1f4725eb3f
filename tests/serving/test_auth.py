"""Where a token comes from, and what it opens."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from b3dist.errors import ConfigError
from b3dist.serving.auth import read_token
from b3dist.serving.holder import Holder
from tests.serving.clients import client_of, make_api


def test_a_token_comes_from_the_file_before_the_environment(tmp_path: Path) -> None:
    """A trailing newline, as editors leave it, is no part of the token."""
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert read_token(file, {"B3DIST_TOKEN": "from-environment"}) == b"from-file"
    assert read_token(None, {"B3DIST_TOKEN": "from-environment"}) == b"from-environment"
    assert read_token(None, {}) is None


@pytest.mark.parametrize("content", ["", "\n", "two words", "a\nb", "tab\there"])
def test_a_token_that_no_header_could_carry_is_refused(tmp_path: Path, content: str) -> None:
    """An empty file must not open the endpoint, and the token itself is not repeated."""
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ConfigError, match="holds no usable token") as raised:
        read_token(file, {})
    assert not content.strip() or content.strip() not in str(raised.value)


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    """Not finding it is an error, never an endpoint without a token."""
    with pytest.raises(ConfigError, match="cannot read the token file"):
        read_token(tmp_path / "absent", {})


TOKEN = "sésame-ouvre-toi-密".encode()
OPEN = ("/healthz", "/readyz", "/docs", "/docs/assets/swagger-ui.css", "/openapi.json")
CLOSED = ("/v1/assets", "/v1/release", "/v1/nothing", "/nothing", "/docs/oauth2-redirect", "/healthz/", "//healthz")


@pytest.fixture(scope="module")
def guarded(holder: Holder) -> TestClient:
    """A client of an endpoint that requires a token which is not ASCII."""
    return client_of(make_api(holder, token=TOKEN))


def bearer(token: bytes) -> list[tuple[bytes, bytes]]:
    """The header that carries a token."""
    return [(b"authorization", b"Bearer " + token)]


def test_only_probes_and_docs_are_open(guarded: TestClient) -> None:
    """Everything else is 401 without a token, unknown paths too, before the body is looked at."""
    for path in OPEN:
        assert guarded.get(path).status_code == 200, path
    for path in CLOSED:
        response = guarded.get(path)
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["hint"]
        assert response.headers["x-release-id"]
    assert guarded.post("/v1/predict", content=b"{").status_code == 401


def test_the_right_token_opens_and_nothing_else_does(guarded: TestClient) -> None:
    """Other schemes, cases, lengths, encodings and repeated headers are refused without an exception."""
    assert guarded.get("/v1/assets", headers=bearer(TOKEN)).status_code == 200
    lower = [(b"authorization", b"bearer " + TOKEN)]
    assert guarded.get("/v1/assets", headers=lower).status_code == 200
    wrong = [
        bearer(TOKEN[:-1]),
        bearer(TOKEN + b"x"),
        bearer(b""),
        bearer(b"\xff\xfe"),
        bearer("sésame-ouvre-toi-密".encode("utf-16-le")),
        [(b"authorization", b"Basic " + TOKEN)],
        [(b"authorization", TOKEN)],
        [(b"authorization", b"Bearer")],
        bearer(TOKEN) + bearer(b"x"),
        [(b"x-authorization", b"Bearer " + TOKEN)],
    ]
    for headers in wrong:
        assert guarded.get("/v1/assets", headers=headers).status_code == 401, headers
    assert guarded.get(f"/v1/assets?token={TOKEN.decode()}").status_code == 401


def test_no_answer_repeats_the_token(guarded: TestClient) -> None:
    """Not even the document at /docs, nor an error about a request that carried it."""
    for path in (*OPEN, "/v1/release", "/v1/assets?x=1", "/nothing"):
        assert TOKEN not in guarded.get(path, headers=bearer(TOKEN)).content
