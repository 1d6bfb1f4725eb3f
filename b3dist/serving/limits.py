"""What a request may ask at most, and the gate that holds it to the size of its body."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from b3dist.errors import ConfigError
from b3dist.serving.problems import Refusal, problem_response

MAX_TICKERS = 2_000
"""Tickers in one request; the exchange lists about 400 shares, and 700 with funds and receipts."""
MAX_BARS = 5_000
"""Bars of one ticker in one request: 20 years."""
MAX_PAGE_SIZE = 100
MAX_TICKER_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that an operator may set."""

    max_body_bytes: int = 16 * 2**20
    """Largest request body: 250 bars of 700 tickers in JSON take about 12 MB."""

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1024:
            raise ConfigError(f"max_body_bytes must be at least 1024, got {self.max_body_bytes}")


class BodyLimit:
    """ASGI middleware: 413 for a body over the limit, announced or found out chunk by chunk; 400 for a bad length."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self.app = app
        self._most = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse at once what announces too much; count what announces nothing."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0").strip()
        if not announced.isdigit():
            refusal = Refusal(400, "the header Content-Length is no number of bytes", hint="send decimal digits only")
            await problem_response(refusal, scope)(scope, receive, send)
            return
        # By its digits first: int() refuses to read thousands of them.
        significant = announced.lstrip(b"0") or b"0"
        if len(significant) > len(str(self._most)) or int(significant) > self._most:
            await problem_response(self._refusal(), scope)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                raise self._refusal()
            return message

        await self.app(scope, counted, send)

    def _refusal(self) -> Refusal:
        return Refusal(
            413,
            f"the request's body is larger than {self._most} bytes",
            hint="send fewer tickers or bars per request",
            facts={"limit_bytes": self._most},
        )
