"""`ray job submit ... -- python jobs/retrain_fleet.py`, really submitted to a cluster with a dashboard and a token."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.distributed.runs import QUICK

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dashboard() -> Iterator[str]:
    """The address of the dashboard of a local cluster; token authentication is Ray's default for one."""
    context = ray.init(address="local", num_cpus=3, include_dashboard=True, dashboard_host="127.0.0.1")
    yield f"http://{context.dashboard_url}"
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_submitted_job_retrains_the_fleet(dashboard: str, small_lake: Path, tmp_path: Path) -> None:
    """The job attaches to the cluster it was submitted to, finds b3dist in its working directory, and answers JSON."""
    job = [sys.executable, "jobs/retrain_fleet.py", "--lake", str(small_lake), "--runs", str(tmp_path / "runs")]
    job += ["--workers", "2", "--json", *(word for override in QUICK for word in ("--set", override))]
    ray_command = str(Path(sys.executable).with_name("ray"))
    done = subprocess.run(
        [ray_command, "job", "submit", "--address", dashboard, "--working-dir", str(ROOT), "--", *job],
        env={**os.environ, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"run_id"')))
    assert (answer["trained"], answer["failed"]) == (6, 0)
    assert len(list(Path(answer["path"], "assets").iterdir())) == 6
