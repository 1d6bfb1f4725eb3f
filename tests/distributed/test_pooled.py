"""The pooled model on a real local Ray cluster: same bits as one process, also after a worker was killed."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from b3dist.cli.runs import newest_run
from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.data.pooled import load_pooled
from b3dist.distributed.cluster import connected
from b3dist.distributed.fleet.drive import drive_fleet
from b3dist.distributed.fleet.initial import INIT_FROM, InitialSource, WarmTrainer, warm_config
from b3dist.distributed.fleet.options import FleetOptions
from b3dist.distributed.pooled.drive import PooledOptions, drive_pooled
from b3dist.distributed.pooled.folder import KIND, read_progress
from b3dist.distributed.run_list import list_runs, run_status
from b3dist.distributed.selection import new_run
from b3dist.errors import ConfigError, RunError
from b3dist.recipes import pooled
from b3dist.report import write_report
from b3dist.run_folder import RunFolder
from b3dist.training.bundle import read_bundle
from b3dist.training.pooled import PooledFitting
from tests.distributed.runs import Meanwhile, contents, start_run, wait_for, weights, workers_below
from tests.training.pooled_runs import train_pooled_run

pytestmark = pytest.mark.ray

CONFIG = pooled().with_overrides(
    ["training.epochs=24", "training.patience=24", "training.batch_size=128", "training.micro_batch=32"]
)
UNTRACKED = PooledOptions(workers=2, tracking=False)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray cluster for this module; three logical cores whatever the machine has."""
    with connected("local", num_cpus=3):
        yield


@pytest.fixture(scope="module")
def curve(small_lake: Path) -> list[dict[str, Any]]:
    """Every epoch of the same training in this process, without Ray."""
    lake = Lake(small_lake)
    fitting = PooledFitting(load_pooled(lake, lake.tickers()["ticker"], CONFIG.data), CONFIG)
    return [dataclasses.asdict(record) for record in fitting.epochs()]


def start_pooled(lake: Path, runs: Path, config: Config = CONFIG, **options: str) -> RunFolder:
    """A new pooled run over a lake's assets."""
    return new_run(Lake(lake), runs, config, kind=KIND, options=options)


def curve_of(run: RunFolder, like: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The epochs a run reports, cut down to what a history holds."""
    return [{name: epoch[name] for name in like[0]} for epoch in read_progress(run.path)]


def kill_a_worker_of(run: RunFolder) -> None:
    """SIGKILL, once three epochs are done, the one of the two workers that does not tell of them."""
    epochs = wait_for(lambda: known if len(known := read_progress(run.path)) >= 3 else None)
    *_, newest = (worker for worker in workers_below(os.getpid(), "RayTrainWorker") if worker.pid != epochs[-1]["pid"])
    newest.kill()


@pytest.mark.slow
def test_two_workers_train_the_same_bits(small_lake: Path, tmp_path: Path, curve: list[dict[str, Any]]) -> None:
    """Every epoch of an undisturbed run equals one process's to the bit, and the driver hears of each."""
    run = start_pooled(small_lake, tmp_path / "runs")
    seen: list[int] = []
    summary = drive_pooled(run, UNTRACKED, on_progress=lambda epochs: seen.append(len(epochs)))
    assert curve_of(run, curve) == curve
    assert seen[-1] == len(curve)
    assert summary["totals"]["windows_trained"] == 24 * read_progress(run.path)[0]["num_train_windows"]
    assert not (run.path / "ray").exists(), "checkpoints of a finished run are of no use"


def look_at(run: RunFolder, summary: dict[str, Any]) -> None:
    """A pooled run is listed, reported and in MLflow as any other, with a bundle per asset."""
    runs = run.path.parent
    tickers = {folder.name for folder in run.assets.iterdir()}
    assert tickers == set(run.settings.tickers)
    assert len({read_bundle(run.assets / ticker).facts["model_sha256"] for ticker in tickers}) == 1
    (listed,) = list_runs(runs)
    assert (listed.kind, listed.state, listed.trained) == ("pooled", "finished", 6)
    entries = run_status(runs, newest_run(runs))["entries"]
    assert {entry["ticker"] for entry in entries if entry["metrics"]["ic"] is not None} == tickers
    assert summary["metrics"]["test"]["mean_over_assets"]["num_assets"] == 6
    assert summary["tracking"]["logged"] == 1
    page = write_report(runs, run.run_id).read_text(encoding="utf-8")
    assert all(ticker in page for ticker in tickers)


@pytest.mark.parametrize("round_", [1, *(pytest.param(number, marks=pytest.mark.slow) for number in (2, 3))])
def test_killed_worker_changes_nothing_but_the_time(
    small_lake: Path, tmp_path: Path, curve: list[dict[str, Any]], round_: int
) -> None:
    """The group starts again from the last epoch; the curve is the unbroken one's to the bit, and all is written."""
    run = start_pooled(small_lake, tmp_path / "runs", storage_path=str(tmp_path / "checkpoints"))
    killer = Meanwhile(lambda: kill_a_worker_of(run))
    summary = drive_pooled(run, PooledOptions(workers=2))
    killer.done()
    assert curve_of(run, curve) == curve
    processes = [epoch["pid"] for epoch in read_progress(run.path)]
    assert len(set(processes)) == 2, "another process went on"
    assert processes == sorted(processes, key=processes.index), "and none of the epochs before was trained again"
    assert {epoch["workers"] for epoch in read_progress(run.path)} == {2}
    assert list((tmp_path / "checkpoints" / run.run_id).glob("checkpoint_*")), "kept where the user wanted them"
    look_at(run, summary)


@pytest.mark.slow
def test_finished_run_is_not_trained_again(small_lake: Path, tmp_path: Path) -> None:
    """Driving it once more changes no file of a bundle nor its record; a lost bundle is written again, untrained."""
    quick = CONFIG.with_overrides(["training.epochs=2"])
    run = start_pooled(small_lake, tmp_path / "runs", quick, storage_path=str(tmp_path / "checkpoints"))
    drive_pooled(run, UNTRACKED)
    before, record = contents(run.assets), (run.path / "summary.json").read_bytes()
    summary = drive_pooled(RunFolder.open(tmp_path / "runs", run.run_id), UNTRACKED)
    assert summary == json.loads(record)
    assert (run.path / "summary.json").read_bytes() == record
    assert contents(run.assets) == before
    progress = (run.path / "progress.json").read_bytes()
    lost = run.assets / run.settings.tickers[0]
    stored = {path.name: path.read_bytes() for path in lost.iterdir()}
    for path in lost.iterdir():
        path.unlink()
    lost.rmdir()
    summary = drive_pooled(RunFolder.open(tmp_path / "runs", run.run_id), UNTRACKED)
    assert summary["totals"]["already_done"] == 5
    assert (lost / "model.pt").read_bytes() == stored["model.pt"]
    assert json.loads((lost / "metrics.json").read_text()) == json.loads(stored["metrics.json"])
    assert (run.path / "progress.json").read_bytes() == progress


@pytest.mark.slow
def test_what_every_worker_refuses_is_said_once(small_lake: Path, tmp_path: Path) -> None:
    """A lake too small for the configuration is no reason to start the workers again and again."""
    run = start_pooled(small_lake, tmp_path / "runs", CONFIG.with_overrides(["data.min_sessions=9999"]))
    with pytest.raises(RunError, match="no asset has a usable window"):
        drive_pooled(run, UNTRACKED)
    assert json.loads((run.path / "summary.json").read_text())["state"] == "interrupted"
    (listed,) = list_runs(tmp_path / "runs")
    assert listed.state == "interrupted"


@pytest.mark.slow
def test_asset_with_an_impossible_bar_fails_alone(zero_price_lake: Path, tmp_path: Path) -> None:
    """The others are trained together; the run is listed and reported with the one that failed."""
    run = start_pooled(zero_price_lake, tmp_path / "runs", CONFIG.with_overrides(["training.epochs=2"]))
    summary = drive_pooled(run, UNTRACKED)
    assert (summary["totals"]["trained"], summary["totals"]["skipped"], summary["totals"]["failed"]) == (5, 0, 1)
    (failed,) = [entry for entry in summary["assets"] if entry["state"] == "failed"]
    assert failed["ticker"] == "SIMA3"
    assert "open on" in failed["error"]
    (listed,) = list_runs(tmp_path / "runs")
    assert (listed.state, listed.failed) == ("finished", 1)
    assert (
        failed["error"].split(",")[0].replace("'", "&#39;") in write_report(tmp_path / "runs", run.run_id).read_text()
    )


def test_only_pooled_runs_are_driven(small_lake: Path, tmp_path: Path) -> None:
    """A fleet's folder is left alone, and impossible options are refused before anything starts."""
    run = start_run(small_lake, tmp_path / "runs")
    with pytest.raises(ConfigError, match="is of kind fleet"):
        drive_pooled(run, UNTRACKED)
    with pytest.raises(ConfigError, match="GPU of its own"):
        PooledOptions(workers=2, gpus_per_worker=0.5)
    run = start_pooled(small_lake, tmp_path / "runs")
    with pytest.raises(ConfigError, match="this machine holds 3"):
        drive_pooled(run, PooledOptions(workers=4, tracking=False))
    assert run.path.is_dir()


@pytest.mark.slow
def test_fleet_starts_from_a_pooled_run_and_resumes(small_lake: Path, tmp_path: Path) -> None:
    """Every asset's bundle names the model it started from; a lost one is trained again to the same bits."""
    source_run = train_pooled_run(small_lake, tmp_path / "runs")
    source = InitialSource(kind="run", path=source_run.path)
    config = warm_config(source).with_overrides(["training.epochs=2"])
    run = new_run(Lake(small_lake), tmp_path / "runs", config, options={INIT_FROM: source.to_option()})
    fleet = FleetOptions(workers=2, tracking=False)
    summary = drive_fleet(run, fleet, train_asset=WarmTrainer(source))
    assert summary["totals"]["trained"] == 6
    before = weights(run)
    for ticker in run.settings.tickers:
        facts = json.loads((run.assets / ticker / "bundle.json").read_text())
        assert facts["initial_model"]["origin"] == f"run {source_run.run_id}, {ticker}"
        kept = json.loads((run.assets / ticker / "metrics.json").read_text())["best_epoch"] == 0
        assert facts["source"] == ("pooled" if kept else "own")
    assert (summary["starts"]["pooled"], summary["starts"]["compared"]) == (6, 6)
    assert summary["starts"]["test"]["error_ratio"]["change"]["num_assets"] == 6
    assert {entry["start"]["origin"] for entry in summary["assets"]} == {"pooled"}
    shutil.rmtree(run.assets / run.settings.tickers[0])
    again = RunFolder.open(tmp_path / "runs", run.run_id)
    begun = InitialSource.of_run(again)
    assert begun == source
    drive_fleet(again, fleet, train_asset=WarmTrainer(begun))
    assert weights(run) == before
