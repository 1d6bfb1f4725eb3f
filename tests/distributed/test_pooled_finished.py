"""A pooled run with nothing left to train is settled without a cluster."""

from pathlib import Path

import pytest
import ray

from b3dist.distributed.assignments import Assignments, WorkerId
from b3dist.distributed.pooled import PooledOptions, drive_pooled
from b3dist.run_folder import RunFolder
from tests.distributed.runs import contents
from tests.training.pooled_runs import train_pooled_run

UNTRACKED = PooledOptions(workers=1, tracking=False)


@pytest.fixture
def run(zero_price_lake: Path, tmp_path: Path) -> RunFolder:
    """A finished pooled run of which one asset failed."""
    run = train_pooled_run(zero_price_lake, tmp_path / "runs")
    assignments = Assignments(run.settings.tickers, ledger_path=run.ledger, assets_dir=run.assets)
    assignments.open(pid=1, host="here")
    worker = WorkerId(assignments.begin_attempt(1), 0, 1, "here")
    assert assignments.lease(worker) == "SIMA3"
    assert assignments.record_failed(worker, "SIMA3", "its open is 0")
    assignments.close()
    return run


def test_failed_asset_is_not_what_trains_the_model_again(run: RunFolder) -> None:
    """Resumed as often as one likes, the asset fails again at once, and nothing is written but what says so."""
    before = contents(run.assets)
    for _ in range(2):
        summary = drive_pooled(run, UNTRACKED)
        assert not ray.is_initialized()
        totals = summary["totals"]
        assert (totals["failed"], totals["already_done"], totals["left"]) == (1, 5, 0)
        (failed,) = [entry for entry in summary["assets"] if entry["state"] == "failed"]
        assert (failed["ticker"], failed["error"]) == ("SIMA3", "its open is 0")
    assert contents(run.assets) == before
