"""A fleet with nothing left to train is settled without a cluster."""

from pathlib import Path

import pytest
import ray

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.assignments import Assignments, WorkerId
from b3dist.distributed.fleet.drive import drive_fleet
from b3dist.distributed.fleet.options import FleetOptions
from b3dist.errors import ConfigError, RunError
from b3dist.run_folder import RunFolder
from b3dist.run_summary import FLEET, read_summary
from b3dist.training.asset import train_asset
from tests.distributed.runs import QUICK, contents, start_run

UNTRACKED = FleetOptions(tracking=False)
TRACKED = FleetOptions()


@pytest.fixture
def run(small_lake: Path, tmp_path: Path) -> RunFolder:
    """All six assets are trained; whoever drove the run died before it wrote a summary."""
    run = start_run(small_lake, tmp_path / "runs")
    assignments = Assignments(run.settings.tickers, ledger_path=run.ledger, assets_dir=run.assets)
    assignments.open(pid=1, host="here")
    worker = WorkerId(assignments.begin_attempt(1), 0, 1, "here")
    while (ticker := assignments.lease(worker)) is not None:
        train_asset(Lake(small_lake), ticker, Config().with_overrides(QUICK), run.assets)
        assignments.record_trained(worker, ticker, {"train_seconds": 0.1, "windows_trained": 1})
    assignments.close()
    return run


def test_mlflow_hears_of_what_a_killed_driver_did_not_tell(run: RunFolder, tmp_path: Path) -> None:
    """A resume logs all six, without a cluster; later ones, tracked or not, neither log again nor forget it."""
    before = contents(run.assets)
    tracking = drive_fleet(run, TRACKED)["tracking"]
    assert not ray.is_initialized()
    assert (tracking["logged"], tracking["not_logged"]) == (6, {})
    store = (tmp_path / "mlflow.db").read_bytes()
    for options in (UNTRACKED, TRACKED):
        summary = drive_fleet(run, options)
        assert (summary["state"], summary["tracking"]) == ("finished", tracking)
    assert (tmp_path / "mlflow.db").read_bytes() == store
    assert contents(run.assets) == before


def test_run_finished_untracked_is_logged_when_asked(run: RunFolder) -> None:
    """Not to be tracked is a matter of each invocation."""
    assert drive_fleet(run, UNTRACKED)["tracking"] is None
    assert drive_fleet(run, TRACKED)["tracking"]["logged"] == 6


def test_store_that_cannot_be_opened_is_told(run: RunFolder, tmp_path: Path) -> None:
    """The models are there; what is missing is in MLflow, so the run is left to be resumed."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot open the tracking store"):
        drive_fleet(run, FleetOptions(tracking_uri=f"sqlite:///{tmp_path}/file/mlflow.db"))
    assert drive_fleet(run, UNTRACKED)["totals"]["already_done"] == 6


def test_damaged_summary_is_written_again(run: RunFolder) -> None:
    """As its hint says: without a cluster, and without a model touched."""
    drive_fleet(run, UNTRACKED)
    before = contents(run.assets)
    good = read_summary(run.path, "fleet", FLEET)
    (run.path / "summary.json").write_text('{"state": "finished", "totals": 3, "tracking": {"not_logged": {}}}')
    with pytest.raises(RunError, match="totals must be an object"):
        read_summary(run.path, "fleet", FLEET)
    drive_fleet(run, UNTRACKED)
    assert not ray.is_initialized()
    assert good is not None
    assert (read_summary(run.path, "fleet", FLEET) or {})["assets"] == good["assets"]
    assert contents(run.assets) == before
