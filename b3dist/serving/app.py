"""The Serve deployment: HTTP, batching and scoring in one actor, so that a request crosses one process border only.

Nothing here decides an answer: `replies` and `routes` do, and run without Ray too.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve

from b3dist.errors import ConfigError
from b3dist.serving.api import create_api
from b3dist.serving.auth import TOKEN_VARIABLE, read_token
from b3dist.serving.catalogue import Catalogues
from b3dist.serving.holder import Holder
from b3dist.serving.limits import Limits
from b3dist.serving.metrics import ServedGauges, read_node_metrics
from b3dist.serving.network import close_replica
from b3dist.serving.replies import Question, Reply, answer_batch

_LOGGER = logging.getLogger("ray.serve")

MAX_BATCH_SIZE = 64
"""Questions in one pass; a replica is given no more at once (max_ongoing_requests)."""


class Arguments(BaseModel):
    """`args` of the application in a Serve config. No token: a config is shown in dashboards."""

    model_config = ConfigDict(extra="forbid")

    token_file: Path | None = None
    """On every node that runs a replica; None: B3DIST_TOKEN in the replica's environment, or no token."""
    token_required: bool = False
    """Refuse to start without a token: for a host that other machines can reach."""
    max_body_bytes: int = Limits().max_body_bytes


@serve.deployment(name="Endpoint")
@serve.ingress()
class Endpoint:
    """A replica.

    Args:
        arguments: as `build` read them.

    Raises:
        ConfigError: a token is required and there is none, or it cannot be read.
    """

    def __init__(self, arguments: Arguments) -> None:
        close_replica()
        torch.set_num_threads(1)  # replicas share a machine; a pass over a batch is too short to be divided
        self._limits = Limits(max_body_bytes=arguments.max_body_bytes)
        self._token = read_token(arguments.token_file)
        if self._token is None and arguments.token_required:
            raise ConfigError(f"a token is required: set {TOKEN_VARIABLE} for the cluster's processes, or token_file")
        self._holder = Holder()
        self._catalogues = Catalogues(self._holder)
        self._gauges = ServedGauges()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP application of this replica."""
        return create_api(
            self._catalogues, self._ask, read_metrics=read_node_metrics, token=self._token, limits=self._limits
        )

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take over what the config names, aside, while the old release answers. Never raises: that would be final."""
        await asyncio.to_thread(self._take_over, user_config)

    async def check_health(self) -> None:
        """Healthy as long as it answers, whatever it has loaded; Serve asks every few seconds."""
        self._gauges.show(self._holder.current)

    def status(self) -> dict[str, Any]:
        """What this replica serves, and what became of the newest config."""
        return self._holder.status()

    def _take_over(self, user_config: Mapping[str, Any]) -> None:
        self._holder.take_over(user_config)
        try:
            self._catalogues.current()
        except Exception:  # raised again, to the caller, by each request that meets it
            _LOGGER.exception("what is served cannot be described")

    # No waiting for company: while one batch is scored, those who come meanwhile are the next one. A wait would be
    # paid by every request of a lone caller.
    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
    async def _ask(self, questions: list[Question]) -> list[Reply]:
        return answer_batch(self._catalogues, questions)


def build(arguments: Arguments) -> serve.Application:
    """The application that a Serve config imports as b3dist.serving.app:build."""
    return Endpoint.bind(arguments)  # type: ignore[attr-defined]
