"""Bearer tokens: where one comes from, and the gate that compares it in constant time."""

import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from b3dist.errors import ConfigError
from b3dist.serving.problems import Refusal, problem_response

TOKEN_VARIABLE = "B3DIST_TOKEN"  # noqa: S105  the name of the variable, not a token
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
"""Answered without a token: probes carry none, and a browser opens /docs without one; neither holds data."""
DOCS_ASSETS = "/docs/assets"
"""Swagger UI's own files; open like /docs."""


def read_token(token_file: Path | str | None, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The token that callers must send, from a file or else from B3DIST_TOKEN; None if neither is given.

    Raises:
        ConfigError: the file cannot be read, or the token is empty or holds white space or control characters.
    """
    if token_file is not None:
        try:
            token, where = Path(token_file).read_bytes(), f"the token file {token_file}"
        except OSError as error:
            raise ConfigError(f"cannot read the token file {token_file}: {error.strerror}") from error
    elif TOKEN_VARIABLE in environment:
        token, where = os.fsencode(environment[TOKEN_VARIABLE]), TOKEN_VARIABLE
    else:
        return None
    token = token.strip()
    if not token or any(byte <= 0x20 or byte == 0x7F for byte in token):
        raise ConfigError(
            f"{where} holds no usable token: expected one line of visible characters",
            hint="for example the output of: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return token


class BearerGate:
    """ASGI middleware: 401 unless the request carries the token. Unknown paths too, so that nothing can be probed."""

    def __init__(self, app: ASGIApp, *, token: bytes) -> None:
        self.app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it before its body is read."""
        if scope["type"] != "http" or self._admits(scope):
            await self.app(scope, receive, send)
            return
        refusal = Refusal(
            401,
            "a bearer token is required, and this request has none or a wrong one",
            hint="send the header Authorization: Bearer TOKEN",
        )
        await problem_response(refusal, scope)(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(f"{DOCS_ASSETS}/"):
            return True
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(sent) != 1:
            return False
        scheme, _, token = sent[0].partition(b" ")
        # Bytes, as compare_digest raises TypeError on text that is not ASCII.
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)
