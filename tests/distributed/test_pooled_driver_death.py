"""The driver of a pooled run is killed or interrupted: `--resume` goes on from the last epoch to the same end."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from b3dist.distributed.pooled.folder import read_progress
from b3dist.distributed.run_list import list_runs
from b3dist.run_folder import RunFolder, is_driven
from tests.distributed.pooled_drivers import OPTIONS, curves, start, unbroken, wait_for_epochs
from tests.distributed.runs import PATIENCE_S, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.timeout(900)
def test_killed_and_interrupted_driver_goes_on_from_the_last_epoch(small_lake: Path, tmp_path: Path) -> None:
    """SIGKILL, resume, SIGTERM, resume: the curve is the unbroken one's, and no epoch was trained twice."""
    runs = tmp_path / "runs"
    first = start(runs, "--lake", str(small_lake), *OPTIONS)
    (info,) = wait_for(lambda: list_runs(runs) or None)
    run = RunFolder.open(runs, info.run_id)
    wait_for_epochs(run, first, 3)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=PATIENCE_S)
    assert not is_driven(run.path)

    second = start(runs, "--resume", run.run_id)
    wait_for_epochs(run, second, len(read_progress(run.path)) + 3)
    second.send_signal(signal.SIGTERM)
    stdout, stderr = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 1, stderr
    assert f"b3dist pooled --resume {run.run_id} --runs {runs}" in json.loads(stdout)["hint"]
    assert json.loads((run.path / "summary.json").read_text())["state"] == "interrupted"

    third = start(runs, "--resume", run.run_id)
    stdout, stderr = third.communicate(timeout=PATIENCE_S)
    assert third.returncode == 0, stderr
    answer = json.loads(stdout)
    assert (answer["epochs"], answer["trained"]) == (60, 6)
    found, expected = curves(run, unbroken(small_lake))
    assert found == expected
    assert len({epoch["pid"] for epoch in read_progress(run.path)}) == 3


@pytest.mark.timeout(900)
def test_a_run_goes_on_at_another_storage_with_its_checkpoints_or_without(small_lake: Path, tmp_path: Path) -> None:
    """Copied they are gone on from; lost, the run begins anew. The curve is the unbroken one's either way."""
    runs = tmp_path / "runs"
    first = start(runs, "--lake", str(small_lake), "--storage", str(tmp_path / "one"), *OPTIONS)
    (info,) = wait_for(lambda: list_runs(runs) or None)
    run = RunFolder.open(runs, info.run_id)
    wait_for_epochs(run, first, 4)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=PATIENCE_S)

    second = start(runs, "--resume", run.run_id, "--storage", str(tmp_path / "two"))
    wait_for(lambda: len({epoch["pid"] for epoch in read_progress(run.path)}) == 2 or second.poll() is not None)
    second.send_signal(signal.SIGKILL)
    _, stderr = second.communicate(timeout=PATIENCE_S)
    told = re.search(rf"run {run.run_id} goes on from epoch (\d+), with its checkpoints at {tmp_path / 'two'}", stderr)
    assert told is not None, stderr
    processes = [epoch["pid"] for epoch in read_progress(run.path)]
    assert processes.index(processes[-1]) == int(told[1]) - 1 >= 3, "the first driver's epochs were kept"
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(tmp_path / "two")

    third = start(runs, "--resume", run.run_id, "--storage", str(tmp_path / "three"))
    stdout, stderr = third.communicate(timeout=PATIENCE_S)
    assert third.returncode == 0, stderr
    assert f"there are no checkpoints of run {run.run_id} at {tmp_path / 'two'}; it begins anew at epoch 1" in stderr
    assert json.loads(stdout)["epochs"] == 60
    found, expected = curves(run, unbroken(small_lake))
    assert found == expected
    assert len({epoch["pid"] for epoch in read_progress(run.path)}) == 1
