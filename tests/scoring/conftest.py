"""One release of the small lake and a scorer on it, made once for the tests of this folder."""

from pathlib import Path

import pytest

from b3dist.data.lake import Lake
from b3dist.release import Release
from b3dist.scoring import Scorer
from tests.release.releases import make_release


@pytest.fixture(scope="session")
def release(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A plain release of all six assets."""
    return make_release(small_lake, tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="session")
def scorer(release: Release, small_lake: Path) -> Scorer:
    """The release on the lake it was trained from."""
    return Scorer(release, Lake(small_lake))
