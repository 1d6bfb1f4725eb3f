"""One run and its release, made once for the tests of this folder that only read them."""

from pathlib import Path

import pytest

from b3dist.release import Release, ReleaseStore, create_release
from b3dist.run_folder import RunFolder
from tests.release.releases import train_run


@pytest.fixture(scope="session")
def run(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """All six assets of the small lake; a seventh failed."""
    return train_run(small_lake, tmp_path_factory.mktemp("releases") / "runs", failed=["LOST3"])


@pytest.fixture(scope="session")
def release(run: RunFolder) -> Release:
    """The plain release of `run`."""
    return create_release(ReleaseStore(run.path.parents[1] / "releases"), run)
