"""Killed with SIGKILL before any of its file operations, a change of the releases is not there, or there whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from b3dist.release import Release, ReleaseStore, create_release, promote
from b3dist.run_folder import RunFolder
from tests.distributed.runs import PATIENCE_S, contents, wait_for
from tests.release.releases import seeded, train_run


@pytest.fixture
def releases(release: Release, tmp_path: Path) -> Path:
    """A folder of releases whose one release is champion."""
    folder = tmp_path / "releases"
    shutil.copytree(release.path, folder / release.release_id)
    promote(ReleaseStore(folder), release.release_id)
    return folder


def attempts(action: str, run: RunFolder, releases: Path) -> list[dict[str, Any]]:
    """What was found after each kill."""
    command = [sys.executable, "-m", "tests.release.killed_at", action, str(run.path), str(releases)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_killed_create_leaves_nothing_or_everything(run: RunFolder, releases: Path) -> None:
    """Up to the rename only the old release is there, after it the new one too; what was written aside is swept up."""
    champion = ReleaseStore(releases).resolve("champion")
    before = contents(releases / champion)
    found = attempts("create", run, releases)
    created = [one for one in found if len(one["releases"]) > 1]
    assert all(one["aliases"] == {"champion": champion} for one in found)
    assert {one["before"].split()[0] for one in found[:-1]} >= {"os.mkdir", "open", "os.chmod", "os.rename"}
    assert any(name.endswith(".tmp") for one in found for name in one["hidden"])
    assert found[-1]["hidden"] == [".lock"]
    renamed = max(number for number, one in enumerate(found[:-1]) if one["before"].startswith("os.rename"))
    assert created[0] == found[renamed + 1]
    assert contents(releases / champion) == before


@pytest.mark.parametrize("action", ["promote", pytest.param("rollback", marks=pytest.mark.slow)])
def test_a_killed_promotion_moves_the_alias_or_does_not(
    action: str, run: RunFolder, small_lake: Path, releases: Path, tmp_path: Path
) -> None:
    """At every moment aliases.json names a release that opens: the old champion, or after the one rename the new."""
    store = ReleaseStore(releases)
    old = store.resolve("champion")
    new = create_release(store, train_run(small_lake, tmp_path / "runs", config=seeded(1))).release_id
    if action == "rollback":
        promote(store, new, margin=100)
        old, new = new, old
    kept = contents(releases / old), contents(releases / new)
    found = attempts(action, run, releases)
    champions = [one["aliases"]["champion"] for one in found]
    moved = champions.index(new)
    assert champions == [old] * moved + [new] * (len(found) - moved)
    assert found[moved - 1]["before"].startswith("os.rename")
    assert (contents(releases / old), contents(releases / new)) == kept
    history = json.loads((releases / "aliases.json").read_text())["previous"]["champion"]
    assert [one["release_id"] for one in history] == ([old] if action == "promote" else [])


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_refit_leaves_nothing(
    how: signal.Signals, small_lake: Path, releases: Path, tmp_path: Path
) -> None:
    """Killed or interrupted while processes train, the command leaves no file and no process behind."""
    run = train_run(small_lake, tmp_path / "runs", config=seeded(0, "training.epochs=3", "model.hidden_size=256"))
    before = contents(releases)
    words = ["release", "create", run.run_id, "--runs", str(tmp_path / "runs"), "--releases", str(releases)]
    command = [sys.executable, "-m", "b3dist", *words, "--refit", "--workers", "2", "--json"]
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    workers = wait_for(lambda: _training(process.pid))
    process.send_signal(how)
    stdout, _ = process.communicate(timeout=PATIENCE_S)
    if how == signal.SIGINT:
        assert process.returncode == 1
        assert "interrupted; nothing half-written is left" in json.loads(stdout)["error"]
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert alive == []
    assert contents(releases) == before


def _training(pid: int) -> list[psutil.Process] | None:
    """The two processes that refit, once both have spent a second of processor time."""
    children = [
        child for child in psutil.Process(pid).children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
    ]
    busy = [child for child in children if sum(child.cpu_times()[:2]) > 1]
    time.sleep(0.1)
    return children if len(busy) >= 2 else None
