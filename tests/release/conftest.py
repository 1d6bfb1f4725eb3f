"""Runs and their releases, made once for the tests of this folder that only read them."""

import shutil
from pathlib import Path

import pytest

from b3dist.release import Release, ReleaseStore, create_release
from b3dist.run_folder import RunFolder
from tests.release.releases import seeded, train_run


@pytest.fixture(scope="session")
def run(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """All six assets of the small lake; a seventh failed."""
    return train_run(small_lake, tmp_path_factory.mktemp("releases") / "runs", failed=["LOST3"])


@pytest.fixture(scope="session")
def release(run: RunFolder) -> Release:
    """The plain release of `run`."""
    return create_release(ReleaseStore(run.path.parents[1] / "releases"), run)


@pytest.fixture(scope="session")
def releases(small_lake: Path, run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[ReleaseStore, dict]:
    """A folder of releases without aliases, and their ids by what they are."""
    folder = tmp_path_factory.mktemp("promote")
    store = ReleaseStore(folder / "releases")
    runs = {
        "first": run,
        "second": train_run(small_lake, folder / "runs", config=seeded(1)),
        "bad": train_run(small_lake, folder / "runs", config=seeded(0, "training.learning_rate=3")),
        "few": train_run(small_lake, folder / "runs", config=seeded(0), tickers=["SIMA3", "SIMB11"]),
        "early": train_run(
            small_lake,
            folder / "runs",
            config=seeded(0, "data.to_session=2018-09-03", "data.min_sessions=200"),
        ),
    }
    return store, {name: create_release(store, one).release_id for name, one in runs.items()}


@pytest.fixture
def store(releases: tuple[ReleaseStore, dict], tmp_path: Path) -> ReleaseStore:
    """A copy of the folder of releases, to change."""
    shutil.copytree(releases[0].path, tmp_path / "releases")
    return ReleaseStore(tmp_path / "releases")


@pytest.fixture
def ids(releases: tuple[ReleaseStore, dict]) -> dict[str, str]:
    """Release ids by what they are."""
    return releases[1]
