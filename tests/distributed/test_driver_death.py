"""The driver is killed or interrupted: the run is resumed by the command line, and nothing is lost or done twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from b3dist.distributed.run_folder import RunFolder, is_driven
from b3dist.distributed.run_list import list_runs
from tests.distributed.runs import SLOW, contents, events, wait_for

pytestmark = pytest.mark.ray

SETTINGS = [word for override in SLOW for word in ("--set", override)]


def start(lake: Path, runs: Path, *options: str) -> subprocess.Popen[str]:
    """`b3dist fleet` in a process of its own, on a private cluster of two logical cores."""
    words = ["fleet", "--lake", str(lake), "--runs", str(runs), "--workers", "2", "--json", *options]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "b3dist", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def the_run(runs: Path) -> RunFolder:
    """The only run in a folder, as soon as it is there."""
    found = wait_for(lambda: list_runs(runs) or None)
    assert len(found) == 1
    return RunFolder.open(runs, found[0].run_id)


def wait_for_work(run: RunFolder, process: subprocess.Popen[str], *, trained: int) -> None:
    """Wait until the run has trained some assets and another is leased."""

    def look() -> bool | None:
        assert process.poll() is None, process.communicate()
        settled = {event["ticker"] for event in events(run, "trained")}
        last = events(run, "leased", "requeued")[-1:]
        busy = bool(last) and last[0]["event"] == "leased" and last[0]["ticker"] not in settled
        return True if len(settled) >= trained and busy else None

    wait_for(look, timeout_s=240)


def bundles(run: RunFolder) -> dict[str, Any]:
    """Every committed bundle, to the byte."""
    return {folder.name: contents(folder) for folder in run.assets.iterdir() if not folder.name.startswith(".")}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("round_", [1, *(pytest.param(number, marks=pytest.mark.slow) for number in (2, 3))])
def test_killed_and_interrupted_driver_resumes_what_is_missing(small_lake: Path, tmp_path: Path, round_: int) -> None:
    """SIGKILL, resume, SIGTERM, resume: finished assets are untouched to the byte, each is bundled once."""
    runs = tmp_path / "runs"
    first = start(small_lake, runs, *SETTINGS, "--no-mlflow")
    run = the_run(runs)
    wait_for_work(run, first, trained=1)
    assert is_driven(run.path)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not is_driven(run.path)
    before = bundles(run)

    second = start(small_lake, runs, "--resume", run.run_id)
    wait_for_work(run, second, trained=len(before) + 1)
    second.send_signal(signal.SIGTERM)
    stdout, stderr = second.communicate(timeout=120)
    assert second.returncode == 1, stderr
    answer = json.loads(stdout)
    assert f"--resume {run.run_id}" in answer["hint"]
    between = bundles(run)
    assert {ticker: between[ticker] for ticker in before} == before
    assert json.loads((run.path / "summary.json").read_text())["state"] == "interrupted"

    third = start(small_lake, runs, "--resume", run.run_id)
    stdout, stderr = third.communicate(timeout=300)
    assert third.returncode == 0, stderr
    answer = json.loads(stdout)
    assert (answer["already_done"], answer["trained"]) == (len(between), 6 - len(between))
    after = bundles(run)
    assert {ticker: after[ticker] for ticker in between} == between
    assert len(after) == 6
    assert Counter(event["ticker"] for event in events(run, "trained")) == Counter(list(after))
    assert not list(run.assets.glob(".*"))
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["state"] == "finished"
    assert summary["tracking"]["logged"] + summary["tracking"]["already_logged"] == 6
