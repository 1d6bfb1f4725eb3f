"""What the coordinator tells the driver, without Ray: its calls are plain ones."""

from pathlib import Path

from b3dist.distributed.assignments import MAX_FRUITLESS_RESTARTS
from b3dist.distributed.fleet.coordinator import Coordinator


def make(folder: Path) -> Coordinator:
    """Of two assets, with the ledger opened as a driver does it."""
    (folder / "assets").mkdir(exist_ok=True)
    return Coordinator(["SIMA3", "SIMB3"], ledger_path=folder / "ledger.jsonl", assets_dir=folder / "assets")


def test_workers_that_never_start_are_told_of(tmp_path: Path) -> None:
    """Ray Train would start them for ever: after some deaths before any worker registered the driver is told why."""
    coordinator = make(tmp_path)
    for _ in range(MAX_FRUITLESS_RESTARTS):
        coordinator.charge({0: "ImportError: no b3dist here"})
    assert coordinator.progress(0).cannot_start is None
    coordinator.charge({0: "ImportError: no b3dist here", 1: "the same"})
    assert coordinator.progress(0).cannot_start == "ImportError: no b3dist here"


def test_workers_that_started_once_are_charged_otherwise(tmp_path: Path) -> None:
    """Once a group has registered, deaths are fruitless restarts or an asset's fault; preempted workers never count."""
    coordinator = make(tmp_path)
    for _ in range(MAX_FRUITLESS_RESTARTS + 1):
        coordinator.charge({})
    assert coordinator.progress(0).cannot_start is None
    coordinator.begin_attempt(2)
    for _ in range(MAX_FRUITLESS_RESTARTS + 1):
        coordinator.charge({1: "killed"})
    assert coordinator.progress(0).cannot_start is None
