"""The driver of a pooled run is killed or interrupted: `--resume` goes on from the last epoch to the same end."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from b3dist.data.lake import Lake
from b3dist.data.pooled import load_pooled
from b3dist.distributed.pooled import read_progress
from b3dist.distributed.run_list import list_runs
from b3dist.recipes import pooled
from b3dist.run_folder import RunFolder, is_driven
from b3dist.training.pooled import PooledFitting
from tests.distributed.runs import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = ("training.epochs=60", "training.patience=60", "training.batch_size=128", "training.micro_batch=32")


def start(runs: Path, *options: str) -> subprocess.Popen[str]:
    """`b3dist pooled` in a process of its own, on a private cluster of two logical cores."""
    words = ["pooled", "--runs", str(runs), "--workers", "2", "--no-mlflow", "--json", *options]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "b3dist", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for_epochs(run: RunFolder, process: subprocess.Popen[str], count: int) -> None:
    """Wait until the run has done so many epochs, and its driver still lives."""

    def look() -> bool | None:
        assert process.poll() is None, process.communicate()
        return True if len(read_progress(run.path)) >= count else None

    wait_for(look, timeout_s=300)


@pytest.mark.timeout(900)
def test_killed_and_interrupted_driver_goes_on_from_the_last_epoch(small_lake: Path, tmp_path: Path) -> None:
    """SIGKILL, resume, SIGTERM, resume: the curve is the unbroken one's, and no epoch was trained twice."""
    runs = tmp_path / "runs"
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    first = start(runs, "--lake", str(small_lake), *settings)
    (info,) = wait_for(lambda: list_runs(runs) or None)
    run = RunFolder.open(runs, info.run_id)
    wait_for_epochs(run, first, 3)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not is_driven(run.path)

    second = start(runs, "--resume", run.run_id)
    wait_for_epochs(run, second, len(read_progress(run.path)) + 3)
    second.send_signal(signal.SIGTERM)
    stdout, stderr = second.communicate(timeout=120)
    assert second.returncode == 1, stderr
    assert f"pooled --lake {run.settings.lake}" in json.loads(stdout)["hint"]
    assert f"--resume {run.run_id}" in json.loads(stdout)["hint"]
    assert json.loads((run.path / "summary.json").read_text())["state"] == "interrupted"

    third = start(runs, "--resume", run.run_id)
    stdout, stderr = third.communicate(timeout=400)
    assert third.returncode == 0, stderr
    answer = json.loads(stdout)
    assert (answer["epochs"], answer["trained"]) == (60, 6)
    config = pooled().with_overrides(SETTINGS)
    lake = Lake(small_lake)
    fitting = PooledFitting(load_pooled(lake, lake.tickers()["ticker"], config.data), config)
    unbroken = [dataclasses.asdict(record) for record in fitting.epochs()]
    epochs = read_progress(run.path)
    assert [{name: epoch[name] for name in unbroken[0]} for epoch in epochs] == unbroken
    assert len({epoch["pid"] for epoch in epochs}) == 3
