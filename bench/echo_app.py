"""The least a FastAPI deployment can do: answer with the bytes it was sent. What the endpoint is measured beside."""

from fastapi import FastAPI, Request, Response
from ray import serve

api = FastAPI()


@serve.deployment(name="Echo")
@serve.ingress(api)
class Echo:
    """A replica without state."""

    @api.post("/")
    async def echo(self, request: Request) -> Response:
        """The body, back."""
        return Response(await request.body(), media_type="application/json")


def build(_arguments: dict[str, object]) -> serve.Application:
    """The application that a Serve config imports as bench.echo_app:build."""
    return Echo.bind()
