"""What survives a killed ingest, a full disk and a second ingest at once."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from b3dist.data.lake import Lake
from b3dist.data.lake.ingest import ingest
from b3dist.data.lake.writer import LakeWriter
from b3dist.errors import LakeError, StorageError
from tests.data.cotahist_files import DEVELOPMENT
from tests.data.lakes import content, files_of, needs_shared, write


def test_two_ingests_at_once_are_refused(tmp_path: Path) -> None:
    """The second one says which process is writing."""
    path, lake = write(tmp_path / "a.TXT"), tmp_path / "lake"
    with LakeWriter(lake, universe=None), pytest.raises(LakeError, match=f"process {os.getpid()}"):
        ingest([path], lake)
    assert ingest([path], lake).bars == 6


KILL_POINTS = [
    "b3dist.data.lake.ingest.to_bars",
    "b3dist.data.lake.spool.Spool._spill",
    "b3dist.data.lake.writer.write_year",
    "b3dist.data.lake.writer.positions_of",
    "b3dist.data.lake.writer.write_durably",
    "b3dist.data.lake.writer.commit_manifest",
    "b3dist.data.lake.manifest.Path.replace",
]
AFTER_THE_COMMIT = "b3dist.data.lake.manifest.flush_to_disk"
KILLER = """
import os, pkgutil, signal, sys
from pathlib import Path
import b3dist.data.lake.spool as spool
from b3dist.data.lake import ingest
spool.Spool.__init__.__kwdefaults__["rows_in_memory"] = 2
new, folder = Path(sys.argv[1]), Path(sys.argv[2])
for point in sys.argv[3:]:
    child = os.fork()
    if not child:
        owner, _, name = point.rpartition(".")
        setattr(pkgutil.resolve_name(owner), name, lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL))
        try:
            ingest([new], folder / point)
        finally:
            os._exit(0)
    print(point, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Killed:
    """A lake whose second ingest, of `new`, was killed."""

    lake: Path
    new: Path
    manifest: bytes
    """What manifest.json was before."""
    bars: pd.DataFrame
    """What the lake held before."""


@pytest.fixture(scope="module")
def kill(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Killed]:
    """Lakes left behind by an ingest killed at each point; one process forks a victim per point, to import once."""
    folder = tmp_path_factory.mktemp("killed")
    points = [*KILL_POINTS, AFTER_THE_COMMIT]
    for point in points:
        ingest([write(folder / "a.TXT")], folder / point)
    new = write(folder / "b.TXT", generated=date(2024, 1, 4), seed=1)
    manifest, bars = (folder / points[0] / "manifest.json").read_bytes(), content(folder / points[0])
    command = [sys.executable, "-c", KILLER, str(new), str(folder), *points]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert report.splitlines() == [f"{point} {-signal.SIGKILL}" for point in points]
    return lambda point: Killed(folder / point, new, manifest, bars)


@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_killed_ingest_leaves_the_lake_as_it_was(kill: Callable[[str], Killed], point: str, tmp_path: Path) -> None:
    """SIGKILL at any step: the same bars as before, and the next ingest works and clears away what was left."""
    killed = kill(point)
    assert (killed.lake / "manifest.json").read_bytes() == killed.manifest
    pd.testing.assert_frame_equal(content(killed.lake), killed.bars)
    assert ingest([killed.new], killed.lake).files[0].status == "ingested"
    ingest([killed.new], tmp_path / "fresh")
    pd.testing.assert_frame_equal(content(killed.lake), content(tmp_path / "fresh"))
    manifest = Lake(killed.lake).manifest
    assert files_of(killed.lake) == {"manifest.json", *manifest.live, *manifest.previous}


def test_a_kill_just_after_the_commit_loses_nothing(kill: Callable[[str], Killed], tmp_path: Path) -> None:
    """Once the manifest is renamed the new bars are there, and the file counts as known."""
    killed = kill(AFTER_THE_COMMIT)
    assert (killed.lake / "manifest.json").read_bytes() != killed.manifest
    assert ingest([killed.new], killed.lake).files[0].status == "unchanged"
    ingest([killed.new], tmp_path / "fresh")
    pd.testing.assert_frame_equal(content(killed.lake), content(tmp_path / "fresh"))


@pytest.mark.slow
@needs_shared
def test_ingests_killed_at_random_moments_add_up(tmp_path: Path) -> None:
    """Killed again and again by the clock, then run to the end: exactly what one undisturbed ingest gives."""
    lake, moments = tmp_path / "lake", np.random.default_rng(0).uniform(0.5, 4.0, 12)
    command = [sys.executable, "-m", "b3dist", "ingest", str(DEVELOPMENT), "--lake", str(lake)]
    for moment in moments:
        victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        victim.kill()
        victim.wait()
        if (lake / "manifest.json").exists():
            assert len(content(lake)) == 181_930
    ingest([DEVELOPMENT], lake)
    ingest([DEVELOPMENT], tmp_path / "fresh")
    pd.testing.assert_frame_equal(content(lake), content(tmp_path / "fresh"))


def test_a_full_disk_leaves_the_lake_as_it_was(tmp_path: Path) -> None:
    """Running out of room while writing is one clear error; the lake stays readable and grows once there is room."""
    lake, new = tmp_path / "lake", write(tmp_path / "b.TXT", generated=date(2024, 1, 4), seed=1)
    ingest([write(tmp_path / "a.TXT")], lake)
    before, files = content(lake), files_of(lake)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StorageError, match="the lake is unchanged"):
            ingest([new], lake)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    pd.testing.assert_frame_equal(content(lake), before)
    assert files_of(lake) == files
    assert ingest([new], lake).files[0].status == "ingested"


def test_a_lake_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    """An unusable path is a storage error that names it."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="cannot write the lake"):
        ingest([write(tmp_path / "a.TXT")], tmp_path / "taken" / "lake")
