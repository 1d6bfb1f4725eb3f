"""`jobs/score.py` on a real cluster, killed and run again: the bytes of an unbroken job."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.distributed.score import drive_scores, plan_scores, write_part
from b3dist.release import Release
from tests.distributed.runs import PATIENCE_S, contents, kill_while
from tests.release.releases import make_release

ROOT = Path(__file__).parents[2]
NUM_PARTS = 40


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty assets; with one part each there is time to kill a job between two."""
    folder = tmp_path_factory.mktemp("job")
    simulate(folder / "files", assets=NUM_PARTS, sessions=400, seed=7)
    ingest([folder / "files"], folder / "lake")
    return folder / "lake"


@pytest.fixture(scope="module")
def release(lake: Path) -> Release:
    """One model for each asset that has sessions enough."""
    sizes = Lake(lake).tickers()
    return make_release(lake, lake.parent, tickers=sizes["ticker"][sizes["num_sessions"] >= 300].tolist())


def start(lake: Path, release: Release, out: Path) -> subprocess.Popen[str]:
    """jobs/score.py, one asset per part, in a process of its own; it answers JSON."""
    words = ["--lake", lake, "--runs", lake.parent / "runs", "--release", release.release_id, "--json"]
    words += ["--history", "2010-01-01:2018-12-31", "--out", out, "--tickers-per-part", "1"]
    return subprocess.Popen(
        [sys.executable, "jobs/score.py", *(str(word) for word in words)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_job_goes_on_to_the_same_bytes(lake: Path, release: Release, tmp_path: Path) -> None:
    """SIGKILL between two parts; the rerun keeps what was finished and ends with the bytes of a single process."""
    out, alone = tmp_path / "out", tmp_path / "alone"
    plan = plan_scores(release, Lake(lake), span=(date(2010, 1, 1), date(2018, 12, 31)), tickers_per_part=1)
    assert NUM_PARTS >= len(plan.parts) > 30
    # Tasks are handed out by the driver: while it is stopped hardly any part is added.
    kill_while(start(lake, release, out), lambda: 0 < len(list(out.glob("part-*.parquet"))) < len(plan.parts) - 4)
    finished = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("part-*.parquet")}
    assert not (out / "manifest.json").exists()
    done = start(lake, release, out)
    answer, errors = done.communicate(timeout=PATIENCE_S)
    assert done.returncode == 0, errors
    assert all((path.read_bytes(), path.stat().st_mtime_ns) == was for path, was in finished.items())
    alone.mkdir()
    for number in range(len(plan.parts)):
        write_part(plan, alone, number)
    manifest = drive_scores(plan, alone)
    job, whole = ({name: digest for name, (digest, _) in contents(folder).items()} for folder in (out, alone))
    assert job == whole
    assert json.loads(answer)["parts"] == len(plan.parts)
    assert json.loads(answer)["rows"] == manifest["rows"] > 0
