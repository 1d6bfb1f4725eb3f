"""The driver of a pooled run is killed or interrupted: `--resume` goes on from the last epoch to the same end."""

import json
import signal
from pathlib import Path

import pytest

from b3dist.distributed.pooled_folder import read_progress
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
    assert f"pooled --lake {run.settings.lake}" in json.loads(stdout)["hint"]
    assert f"--resume {run.run_id}" in json.loads(stdout)["hint"]
    assert json.loads((run.path / "summary.json").read_text())["state"] == "interrupted"

    third = start(runs, "--resume", run.run_id)
    stdout, stderr = third.communicate(timeout=PATIENCE_S)
    assert third.returncode == 0, stderr
    answer = json.loads(stdout)
    assert (answer["epochs"], answer["trained"]) == (60, 6)
    found, expected = curves(run, unbroken(small_lake))
    assert found == expected
    assert len({epoch["pid"] for epoch in read_progress(run.path)}) == 3
