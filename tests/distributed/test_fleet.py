"""The fleet on a real local Ray cluster: training, failing, being killed, and ending with the same numbers."""

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import ray

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.cluster import connected
from b3dist.distributed.fleet.drive import drive_fleet
from b3dist.distributed.fleet.options import FleetOptions
from b3dist.distributed.fleet.worker import TrainAsset
from b3dist.distributed.ledger import Event
from b3dist.distributed.probe import require_cluster
from b3dist.errors import RunError, StorageError
from b3dist.run_folder import RunFolder
from b3dist.training.asset import TrainedAsset, train_asset
from tests.distributed.runs import QUICK, SLOW, Meanwhile, contents, events, start_run, wait_for, weights

pytestmark = pytest.mark.ray

UNTRACKED = FleetOptions(workers=2, tracking=False)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray cluster for this module; three logical cores whatever the machine has."""
    with connected("local", num_cpus=3):
        yield


@pytest.fixture(scope="module")
def tickers(small_lake: Path) -> list[str]:
    """The small lake's assets."""
    return sorted(Lake(small_lake).tickers()["ticker"])


def states(summary: dict) -> dict[str, str]:
    """Every asset's state."""
    return {entry["ticker"]: entry["state"] for entry in summary["assets"]}


def raising_trainer(always: str, once: str, marks: Path) -> TrainAsset:
    """The real trainer, except that it raises for one asset always and for another the first time."""

    def train(lake: Lake, ticker: str, config: Config, assets_dir: Path) -> TrainedAsset:
        if ticker == always:
            raise ZeroDivisionError("no luck")
        if ticker == once and not marks.exists():
            marks.touch()
            raise ZeroDivisionError("no luck at first")
        return train_asset(lake, ticker, config, assets_dir)

    return train


def killing_trainer(poisoned: str) -> TrainAsset:
    """The real trainer, except that one asset kills its process every time."""

    def train(lake: Lake, ticker: str, config: Config, assets_dir: Path) -> TrainedAsset:
        if ticker == poisoned:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_asset(lake, ticker, config, assets_dir)

    return train


def test_fleet_trains_skips_and_fails_each_asset_once(small_lake: Path, tmp_path: Path, tickers: list[str]) -> None:
    """One asset always raises, one raises once, one is too short: the others do not suffer, and MLflow hears of all."""
    shortest = str(Lake(small_lake).tickers().set_index("ticker")["num_sessions"].idxmin())
    always, once, *_ = (ticker for ticker in tickers if ticker != shortest)
    run = start_run(small_lake, tmp_path / "runs", "data.min_sessions=390", "training.epochs=2")
    moments = []
    summary = drive_fleet(
        run,
        FleetOptions(workers=2),
        on_progress=moments.append,
        train_asset=raising_trainer(always, once, tmp_path / "raised"),
    )
    expected = dict.fromkeys(tickers, "trained") | {always: "failed", shortest: "skipped"}
    assert states(summary) == expected
    assert {folder.name for folder in run.assets.iterdir()} == {
        t for t, state in expected.items() if state == "trained"
    }
    entries = {entry["ticker"]: entry for entry in summary["assets"]}
    assert entries[always]["error"].startswith("ZeroDivisionError: no luck (at test_fleet.py:")
    assert "390" in entries[shortest]["reason"]
    assert Counter(event["ticker"] for event in events(run, "leased")) == Counter(tickers) + Counter([always, once])
    assert moments[-1].settled == moments[-1].total == len(tickers)
    assert summary["totals"]["windows_trained"] == sum(entry["windows_trained"] or 0 for entry in entries.values())
    assert summary["tracking"]["logged"] == len(tickers) - 1
    assert (tmp_path / "mlflow.db").is_file()
    assert json.loads((run.path / "summary.json").read_text())["totals"]["trained"] == len(tickers) - 2


@pytest.fixture(scope="module")
def reference(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """sha256 of every asset's model.pt, each trained alone in this process."""
    alone = tmp_path_factory.mktemp("alone")
    lake = Lake(small_lake)
    for ticker in lake.tickers()["ticker"]:
        train_asset(lake, ticker, Config().with_overrides(QUICK), alone)
    digests = {folder.name: sha256((folder / "model.pt").read_bytes()).hexdigest() for folder in alone.iterdir()}
    assert len(set(digests.values())) == 6
    return digests


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_any_number_of_workers_gives_bit_identical_weights(
    small_lake: Path, tmp_path: Path, reference: dict[str, str], workers: int
) -> None:
    """The bytes of model.pt are those of training alone, for every asset; with two workers the test below looks."""
    run = start_run(small_lake, tmp_path / "runs")
    drive_fleet(run, FleetOptions(workers=workers, tracking=False))
    assert weights(run) == reference
    assert events(run, "group")[0]["workers"] == workers


def test_finished_run_resumes_without_starting_a_worker(
    small_lake: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    """Nothing is left: nothing is trained, nothing is touched, and no group is started."""
    run = start_run(small_lake, tmp_path / "runs")
    drive_fleet(run, UNTRACKED)
    assert weights(run) == reference
    before = contents(run.assets)
    (group,) = events(run, "group")
    assert group["workers"] == 2
    summary = drive_fleet(RunFolder.open(tmp_path / "runs", run.run_id), UNTRACKED)
    assert (summary["totals"]["trained"], summary["totals"]["already_done"]) == (0, 6)
    assert contents(run.assets) == before
    assert events(run, "group") == [group]


def kill_a_worker_of(run: RunFolder) -> None:
    """SIGKILL, by the pid in its lease, a worker that has just begun an asset, after another asset was trained."""

    def begun() -> Event | None:
        happened = events(run, "leased", "trained")
        first = next((place for place, event in enumerate(happened) if event["event"] == "trained"), len(happened))
        return next((event for event in happened[first:] if event["event"] == "leased"), None)

    os.kill(wait_for(begun)["pid"], signal.SIGKILL)


@pytest.mark.parametrize("round_", [1, *(pytest.param(number, marks=pytest.mark.slow) for number in (2, 3))])
def test_killed_worker_costs_only_what_was_in_flight(small_lake: Path, tmp_path: Path, round_: int) -> None:
    """All assets are trained once each; only leases of the dead group are repeated, and at most one is charged."""
    run = start_run(small_lake, tmp_path / "runs", *SLOW)
    killer = Meanwhile(lambda: kill_a_worker_of(run))
    summary = drive_fleet(run, UNTRACKED)
    killer.done()
    assert set(states(summary).values()) == {"trained"}
    assert Counter(event["ticker"] for event in events(run, "trained")) == Counter(list(states(summary)))
    first, second = events(run, "group")
    assert (first["attempt"], second["attempt"]) == (1, 2)
    repeated = {ticker for ticker, times in Counter(e["ticker"] for e in events(run, "leased")).items() if times > 1}
    requeued = {event["ticker"] for event in events(run, "requeued")}
    assert repeated == requeued
    assert 1 <= len(repeated) <= 2
    assert len(events(run, "charged")) == 1
    assert not list(run.assets.glob(".*")), "what the killed worker wrote aside is gone"


@pytest.mark.slow
@pytest.mark.parametrize("round_", [1, 2, 3])
def test_asset_that_always_kills_its_worker_is_quarantined(
    small_lake: Path, tmp_path: Path, tickers: list[str], round_: int
) -> None:
    """After two charged attempts it has failed, with the reason; everything else is trained once."""
    run = start_run(small_lake, tmp_path / "runs")
    poisoned = run.settings.tickers[1]
    summary = drive_fleet(run, UNTRACKED, train_asset=killing_trainer(poisoned))
    assert states(summary) == dict.fromkeys(tickers, "trained") | {poisoned: "failed"}
    entry = next(entry for entry in summary["assets"] if entry["ticker"] == poisoned)
    assert entry["kind"] == "quarantined"
    assert "took down its worker 2 times" in entry["error"]
    assert Counter(event["ticker"] for event in events(run, "charged")) == {poisoned: 2}
    assert Counter(event["ticker"] for event in events(run, "trained")) == Counter(set(tickers) - {poisoned})


def test_full_disk_stops_the_run_which_resumes_once_there_is_space(small_lake: Path, tmp_path: Path) -> None:
    """A clear StorageError, what was trained stays untouched, and a resumed run trains the rest."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=480k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        run = start_run(small_lake, disk / "runs")
        with pytest.raises(StorageError, match=r"No space left|cannot write"):
            drive_fleet(run, UNTRACKED)
        trained = {folder.name for folder in run.assets.iterdir() if not folder.name.startswith(".")}
        assert 0 < len(trained) < 6
        before = {ticker: contents(run.assets / ticker) for ticker in trained}
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        summary = drive_fleet(RunFolder.open(disk / "runs", run.run_id), UNTRACKED)
        assert summary["totals"]["already_done"] == len(trained)
        assert summary["totals"]["trained"] == 6 - len(trained)
        assert {ticker: contents(run.assets / ticker) for ticker in trained} == before
        assert not list(run.assets.glob(".*"))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_worker_that_cannot_get_ready_stops_the_run(small_lake: Path, tmp_path: Path) -> None:
    """Its lake is gone: one group and one sentence, not a new group for ever."""
    lake = tmp_path / "lake"
    shutil.copytree(small_lake, lake)
    run = start_run(lake, tmp_path / "runs")
    lake.rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"stopped: .*lake"):
        drive_fleet(run, UNTRACKED)
    assert len(events(run, "group")) == 1
    assert not events(run, "leased")


def test_cluster_is_on_the_loopback_interface_only() -> None:
    """Nobody else on the network can reach a private cluster."""
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}


def test_cluster_answers_the_probe() -> None:
    """What `--address` is asked before it is connected to; something else would be refused."""
    require_cluster(ray.get_runtime_context().gcs_address)
