"""One release, held and served in this process, for the tests of this folder that only ask."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from b3dist.release import Release
from b3dist.serving.holder import Holder
from tests.release.releases import make_release
from tests.serving.clients import client_of, hold, make_api


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
