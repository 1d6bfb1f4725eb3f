"""Drivers of pooled runs in processes of their own, to be killed, and what an unbroken run gives."""

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

from b3dist.data.lake import Lake
from b3dist.data.pooled import load_pooled
from b3dist.distributed.pooled.folder import read_progress
from b3dist.recipes import pooled
from b3dist.run_folder import RunFolder
from b3dist.training.pooled import PooledFitting
from tests.distributed.runs import start_driver, wait_for

SETTINGS = ("training.epochs=60", "training.patience=60", "training.batch_size=128", "training.micro_batch=32")
"""Some ten seconds on the small lake: time enough to kill whoever trains it."""
OPTIONS = [word for setting in SETTINGS for word in ("--set", setting)]


def start(runs: Path, *options: str) -> subprocess.Popen[str]:
    """`b3dist pooled` in a process of its own, on a private cluster of two logical cores."""
    words = ["pooled", "--runs", str(runs), "--workers", "2", "--no-mlflow", "--json", *options]
    return start_driver(*words)


def wait_for_epochs(run: RunFolder, process: subprocess.Popen[str], count: int) -> None:
    """Wait until the run has done so many epochs, and its driver still lives."""

    def look() -> bool | None:
        assert process.poll() is None, process.communicate()
        return True if len(read_progress(run.path)) >= count else None

    wait_for(look)


def unbroken(lake: Path) -> PooledFitting:
    """The same training in this process, to its end."""
    config = pooled().with_overrides(SETTINGS)
    opened = Lake(lake)
    fitting = PooledFitting(load_pooled(opened, opened.tickers()["ticker"], config.data), config)
    for _ in fitting.epochs():
        pass
    return fitting


def curves(run: RunFolder, fitting: PooledFitting) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every epoch that a run reports, and the same of a training in this process."""
    expected = [dataclasses.asdict(record) for record in fitting.history]
    return [{name: epoch[name] for name in expected[0]} for epoch in read_progress(run.path)], expected
