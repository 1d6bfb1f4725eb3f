"""The driver is killed or interrupted: the run is resumed by the command line, and nothing is lost or done twice."""

import json
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from b3dist.distributed.run_list import list_runs
from b3dist.run_folder import RunFolder, is_driven
from tests.distributed.runs import PATIENCE_S, SLOW, contents, events, start_driver, wait_for

pytestmark = pytest.mark.ray

SETTINGS = [word for override in SLOW for word in ("--set", override)]


def start(lake: Path, runs: Path, *options: str) -> subprocess.Popen[str]:
    """`b3dist fleet` in a process of its own, on a private cluster of two logical cores."""
    words = ["fleet", "--lake", str(lake), "--runs", str(runs), "--workers", "2", "--json", *options]
    return start_driver(*words)


def the_run(runs: Path) -> RunFolder:
    """The only run in a folder, as soon as it is there."""
    found = wait_for(lambda: list_runs(runs) or None)
    assert len(found) == 1
    return RunFolder.open(runs, found[0].run_id)


def wait_for_work(run: RunFolder, process: subprocess.Popen[str], *, invocation: int, trained: int = 0) -> None:
    """Wait until this invocation holds an asset, which takes seconds, and has trained so many others itself."""

    def look() -> bool | None:
        assert process.poll() is None, process.communicate()
        happened = events(run, "opened", "leased", "trained")
        opened = [index for index, event in enumerate(happened) if event["event"] == "opened"]
        if len(opened) < invocation:
            return None
        own = happened[opened[-1] :]
        done = {event["ticker"] for event in own if event["event"] == "trained"}
        leased = {event["ticker"] for event in own if event["event"] == "leased"}
        return True if len(done) >= trained and leased - done else None

    wait_for(look)


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
    wait_for_work(run, first, invocation=1, trained=1)
    assert is_driven(run.path)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=PATIENCE_S)
    assert not is_driven(run.path)
    before = bundles(run)

    second = start(small_lake, runs, "--resume", run.run_id)
    wait_for_work(run, second, invocation=2)
    second.send_signal(signal.SIGTERM)
    stdout, stderr = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 1, stderr
    answer = json.loads(stdout)
    assert f"--resume {run.run_id}" in answer["hint"]
    between = bundles(run)
    assert {ticker: between[ticker] for ticker in before} == before
    assert json.loads((run.path / "summary.json").read_text())["state"] == "interrupted"

    third = start(small_lake, runs, "--resume", run.run_id)
    stdout, stderr = third.communicate(timeout=PATIENCE_S)
    assert third.returncode == 0, stderr
    answer = json.loads(stdout)
    assert answer["already_done"] + answer["trained"] == 6
    assert answer["already_done"] >= len(between)  # a dying worker may still commit what it was writing
    after = bundles(run)
    assert {ticker: after[ticker] for ticker in between} == between
    assert len(after) == 6
    assert Counter(event["ticker"] for event in events(run, "trained")) == Counter(list(after))
    assert not list(run.assets.glob(".*"))
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["state"] == "finished"
    assert summary["tracking"]["logged"] + summary["tracking"]["already_logged"] == 6


@pytest.mark.parametrize(
    "delay_s", [1.5, 3.0, pytest.param(2.0, marks=pytest.mark.slow), pytest.param(5.0, marks=pytest.mark.slow)]
)
def test_sigterm_while_ray_starts_leaves_a_resumable_run(small_lake: Path, tmp_path: Path, delay_s: float) -> None:
    """However early the signal comes, the exit code is 1 and the one JSON object says how to go on."""
    runs = tmp_path / "runs"
    process = start(small_lake, runs, *SETTINGS, "--no-mlflow")
    run = the_run(runs)
    time.sleep(delay_s)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, stderr
    assert run.run_id in json.loads(stdout)["hint"]
    assert json.loads((run.path / "summary.json").read_text())["state"] == "interrupted"
    assert not is_driven(run.path)
