"""A pooled run with nothing left to train is settled without a cluster."""

import json
import shutil
from pathlib import Path

import pytest
import ray

from b3dist.distributed.assignments import Assignments, WorkerId
from b3dist.distributed.pooled.drive import PooledOptions, drive_pooled
from b3dist.distributed.pooled.folder import remove_partial_checkpoints
from b3dist.errors import RunError
from b3dist.run_folder import RunFolder
from tests.distributed.runs import contents
from tests.training.pooled_runs import train_pooled_run

UNTRACKED = PooledOptions(workers=1, tracking=False)


@pytest.fixture(scope="module")
def trained(zero_price_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A pooled run of which one asset failed."""
    run = train_pooled_run(zero_price_lake, tmp_path_factory.mktemp("pooled") / "runs")
    assignments = Assignments(run.settings.tickers, ledger_path=run.ledger, assets_dir=run.assets)
    assignments.open(pid=1, host="here")
    worker = WorkerId(assignments.begin_attempt(1), 0, 1, "here")
    assert assignments.lease(worker) == "SIMA3"
    assert assignments.record_failed(worker, "SIMA3", "its open is 0")
    assignments.close()
    return run


@pytest.fixture
def run(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it, to change."""
    shutil.copytree(trained.path, tmp_path / "runs" / trained.run_id)
    return RunFolder.open(tmp_path / "runs", trained.run_id)


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


def test_mlflow_hears_of_what_a_killed_driver_did_not_tell(run: RunFolder) -> None:
    """The model was written, the driver died, and nothing is left to train: a resume logs it, without a cluster."""
    summary = drive_pooled(run, PooledOptions(workers=1))
    assert not ray.is_initialized()
    assert (summary["tracking"]["logged"], summary["tracking"]["not_logged"]) == (1, {})
    assert drive_pooled(run, UNTRACKED)["tracking"] == summary["tracking"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
@pytest.mark.parametrize("name", ["metrics.json", "bundle.json", "model.pt"])
def test_damaged_model_is_not_taken_for_a_finished_one(run: RunFolder, name: str, content: str | None) -> None:
    """The model is named, no cluster starts, and what the run says of itself stays as it was."""
    drive_pooled(run, UNTRACKED)
    summary = (run.path / "summary.json").read_bytes()
    file = run.path / "pooled" / name
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(RunError, match=f"{run.run_id}/pooled") as caught:
        drive_pooled(run, UNTRACKED)
    assert "remove it and resume" in caught.value.hint
    assert not ray.is_initialized()
    assert (run.path / "summary.json").read_bytes() == summary


@pytest.mark.parametrize("content", ["x", "[]", "{}", '{"epochs": 3}', '{"epochs": [{"epoch": 1}]}', '{"epochs": [3]}'])
def test_damaged_progress_is_named(run: RunFolder, content: str) -> None:
    """It is told before anything is begun."""
    (run.path / "progress.json").write_text(content)
    with pytest.raises(RunError, match=r"progress\.json is damaged"):
        drive_pooled(run, UNTRACKED)
    assert not (run.path / "summary.json").exists()


def test_only_checkpoints_that_can_be_gone_on_from_are_kept(run: RunFolder) -> None:
    """A full disk leaves a partial one at each try; the snapshot names the whole ones."""
    folder = run.path / "ray" / run.run_id
    names = ["checkpoint_2024-01-02_03-04-05.1", "checkpoint_2024-01-02_03-04-05.2", "checkpoint_2024-01-02_03-04-06.3"]
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "state.pt").write_bytes(b"half")
    (folder / "checkpoint_manager_snapshot.json").write_text(f'{{"checkpoint_results": ["{names[1]}"]}}')
    remove_partial_checkpoints(run)
    assert {path.name for path in folder.iterdir()} == {names[1], "checkpoint_manager_snapshot.json"}
    (folder / "checkpoint_manager_snapshot.json").unlink()
    remove_partial_checkpoints(run)
    assert not list(folder.iterdir()), "the first epoch already did not fit"


@pytest.mark.parametrize("damage", [{"totals": 3}, {"assets": "x"}, {"pooled": None}, {"run_id": 3}])
def test_damaged_summary_is_written_again(run: RunFolder, damage: dict[str, object]) -> None:
    """As the hint of whoever stumbles over it says, and not answered with."""
    good = drive_pooled(run, UNTRACKED)
    (run.path / "summary.json").write_text(json.dumps({**good, **damage}))
    again = drive_pooled(run, UNTRACKED)
    assert not ray.is_initialized()
    states = {entry["ticker"]: entry["state"] for entry in good["assets"]}
    assert {entry["ticker"]: entry["state"] for entry in again["assets"]} == states
    assert again["pooled"] == good["pooled"]
    assert json.loads((run.path / "summary.json").read_text())["run_id"] == run.run_id
