"""The endpoint's application in this process, without Ray: the same routes, gates and scoring as in a replica."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from b3dist.release import Release
from b3dist.serving.api import create_api
from b3dist.serving.catalogue import Catalogues
from b3dist.serving.holder import Holder
from b3dist.serving.limits import Limits
from b3dist.serving.replies import Question, Reply, answer_batch


def hold(release: Release, lake: Path, **settings: Any) -> Holder:
    """A holder that serves a release on a lake."""
    holder = Holder()
    config = {"releases": str(release.path.parent), "release": release.release_id, "lake": str(lake), **settings}
    assert holder.take_over(config), holder.last_error
    return holder


def make_api(holder: Holder, *, token: bytes | None = None, limits: Limits | None = None) -> FastAPI:
    """The application over a holder; each question is a batch of its own."""
    catalogues = Catalogues(holder)

    async def ask(question: Question) -> Reply:
        return answer_batch(catalogues, [question])[0]

    return create_api(catalogues, ask, token=token, limits=limits)


def client_of(api: FastAPI) -> TestClient:
    """A client that gets answers to defects too, instead of their exceptions."""
    return TestClient(api, raise_server_exceptions=False)
