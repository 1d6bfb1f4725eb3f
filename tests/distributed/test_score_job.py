"""`jobs/score.py` on a real cluster, killed and run again: the bytes of an unbroken job."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from tests.distributed.runs import contents, wait_for
from tests.release.releases import make_release

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.Popen[str]]:
    """Start jobs/score.py on 40 assets, one per part, in a process of its own; it answers JSON."""
    folder = tmp_path_factory.mktemp("job")
    simulate(folder / "files", assets=40, sessions=400, seed=7)
    ingest([folder / "files"], folder / "lake")
    sizes = Lake(folder / "lake").tickers()
    release = make_release(folder / "lake", folder, tickers=sizes["ticker"][sizes["num_sessions"] >= 300].tolist())
    words = ["--lake", folder / "lake", "--runs", folder / "runs", "--release", release.release_id, "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}

    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "jobs/score.py", *words, "--history", "2010-01-01:2018-12-31", "--out", out]
        command += ["--tickers-per-part", "1"]
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.ray
def test_a_killed_job_goes_on_to_the_same_bytes(job: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """SIGKILL after the first part; the rerun keeps what was finished and ends with the bytes of an unbroken job."""
    killed = job(tmp_path / "killed")

    def first_part() -> list[Path] | None:
        assert killed.poll() is None, killed.communicate()
        return list((tmp_path / "killed").glob("part-*.parquet")) or None

    wait_for(first_part, timeout_s=240)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    time.sleep(1)  # tasks of a dead driver end within moments
    finished = contents(tmp_path / "killed")
    assert "manifest.json" not in finished
    for out in ("killed", "whole"):
        done = job(tmp_path / out)
        answer, errors = done.communicate(timeout=300)
        assert done.returncode == 0, errors
        assert json.loads(answer)["parts"] > 30
    after = contents(tmp_path / "killed")
    assert all(after[name] == was for name, was in finished.items() if name.startswith("part-"))
    whole = contents(tmp_path / "whole")
    assert {name: digest for name, (digest, _) in after.items()} == {
        name: digest for name, (digest, _) in whole.items()
    }
    assert json.loads((tmp_path / "whole" / "manifest.json").read_text())["rows"] == json.loads(answer)["rows"] > 0
