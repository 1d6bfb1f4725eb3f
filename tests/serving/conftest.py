"""One release, held and served in this process, for the tests of this folder that only ask."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from b3dist.release import Release
from b3dist.serving.holder import Holder
from tests.release.releases import make_release
from tests.serving.clients import client_of, hold, make_api
from tests.serving.desks import make_desk
from tests.serving.live import LiveEndpoint

TOKEN = "a-token-for-tests"


@pytest.fixture(scope="session")
def served_release(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release that the shared client asks: all six assets of the small lake."""
    return make_release(small_lake, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def holder(served_release: Release, small_lake: Path) -> Holder:
    """Holds it, on the small lake."""
    return hold(served_release, small_lake)


@pytest.fixture(scope="session")
def client(holder: Holder) -> TestClient:
    """Asks it, without a token."""
    return client_of(make_api(holder))


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEndpoint]:
    """`b3dist serve --release champion` with two replicas behind a token; it is ended as by Ctrl-C.

    Its folder looks like a user's. Tests leave it serving the release they found.
    """
    folder = tmp_path_factory.mktemp("live")
    desk = make_desk(folder / "desk")
    (folder / "desk" / ".venv").symlink_to(sys.prefix)
    desk.promote(desk.first.release_id)
    words = ("--release", "champion", "--replicas", "2", "--cpus-per-replica", "0.5", "--max-queue", "40")
    endpoint = LiveEndpoint(desk, *words, log=folder / "stderr", token=TOKEN)
    yield endpoint
    exit_code, stdout = endpoint.stop(signal.SIGINT)
    assert exit_code == 0, endpoint.said
    assert TOKEN not in stdout.decode()
