"""`ray job submit ... -- python jobs/NAME.py`, really submitted to a cluster with a dashboard and a token."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from b3dist.cli.verbs import app
from tests.distributed.runs import QUICK

ROOT = Path(__file__).parents[2]
SWEEP = [
    *("--tickers", "SIMA3,SIMA4,SIMB11", "--trials", "3", "--finalists", "1", "--seeds", "1", "--no-halving"),
    *("--set", "data.label_set=forward_return"),
]

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """The address of the dashboard of a local cluster; token authentication is Ray's default for one."""
    context = ray.init(address="local", num_cpus=3, include_dashboard=True, dashboard_host="127.0.0.1")
    yield f"http://{context.dashboard_url}"
    ray.shutdown()


def submit(dashboard: str, script: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Submit a script of jobs/ and wait for its end."""
    ray_command = str(Path(sys.executable).with_name("ray"))
    words = ["job", "submit", "--address", dashboard, "--working-dir", str(ROOT), "--"]
    return subprocess.run(
        [ray_command, *words, sys.executable, f"jobs/{script}", *options],
        env={**os.environ, "RAY_AUTH_MODE": "token", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def options_for(lake: Path, runs: Path, *more: str) -> list[str]:
    """What jobs and verbs alike are given."""
    quick = [word for override in QUICK for word in ("--set", override)]
    return ["--lake", str(lake), "--runs", str(runs), "--workers", "2", "--json", *quick, *more]


def answer_of(job: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object among what a submitted job prints."""
    assert job.returncode == 0, job.stdout + job.stderr
    (line,) = (line for line in job.stdout.splitlines() if line.startswith('{"'))
    answer: dict[str, Any] = json.loads(line)
    return answer


def answer_of_verb(capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What the verb itself answers, on the cluster that this process is connected to."""
    capfd.readouterr()
    with pytest.raises(SystemExit):
        app(list(words))
    answer: dict[str, Any] = json.loads(capfd.readouterr().out)
    return answer


def test_submitted_job_retrains_the_fleet(dashboard: str, small_lake: Path, tmp_path: Path) -> None:
    """The job attaches to the cluster it was submitted to, finds b3dist in its working directory, and answers JSON."""
    answer = answer_of(submit(dashboard, "retrain_fleet.py", *options_for(small_lake, tmp_path / "runs")))
    assert (answer["trained"], answer["failed"]) == (6, 0)
    assert len(list(Path(answer["path"], "assets").iterdir())) == 6


def test_submitted_job_trains_the_pooled_model(
    dashboard: str, small_lake: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every figure is the verb's own; checkpoints go where --storage says."""
    storage = tmp_path / "checkpoints"
    options = options_for(small_lake, tmp_path / "job" / "runs", "--storage", str(storage))
    answer = answer_of(submit(dashboard, "train_pooled.py", *options))
    assert list(storage.rglob("state.pt"))
    verb = answer_of_verb(capfd, "pooled", *options_for(small_lake, tmp_path / "verb" / "runs"))
    assert answer["metrics"] == verb["metrics"]
    same = ("trained", "skipped", "failed", "windows_trained", "epochs", "workers")
    assert [answer[name] for name in same] == [verb[name] for name in same]
    assert (answer["trained"], answer["workers"]) == (6, 2)


def test_submitted_job_sweeps(
    dashboard: str, small_lake: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It finds the same best trial with the same value and comes to the same verdict as the verb."""
    answer = answer_of(submit(dashboard, "sweep.py", *options_for(small_lake, tmp_path / "job" / "runs", *SWEEP)))
    verb = answer_of_verb(capfd, "sweep", *options_for(small_lake, tmp_path / "verb" / "runs", *SWEEP))
    same = ("best", "trials", "complete", "pruned", "failed", "verdict")
    assert [answer[name] for name in same] == [verb[name] for name in same]
    assert answer["trials"] == 3
    recipes = [yaml.safe_load(Path(one["best_recipe"]).read_text(encoding="utf-8")) for one in (answer, verb)]
    assert recipes[0] == recipes[1]


def test_a_job_without_the_clusters_token_is_refused(dashboard: str, small_lake: Path, tmp_path: Path) -> None:
    """Before anything is uploaded or run."""
    options = options_for(small_lake, tmp_path / "runs")
    refused = submit(dashboard, "sweep.py", *options, RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode != 0
    assert "token" in (refused.stdout + refused.stderr).lower()
    assert not (tmp_path / "runs").exists()
