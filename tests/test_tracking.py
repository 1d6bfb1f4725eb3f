"""Tracking against a real sqlite store."""

import json
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from b3dist.config import Config
from b3dist.errors import ConfigError
from b3dist.tracking import Tracker, default_uri

CONFIG = Config().to_dict()


def write_bundle(folder: Path, *, epochs: int = 4, seed: int = 0) -> Path:
    """A committed asset folder with the files MLflow keeps; the last epoch's macro F1 is undefined."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    part = {
        "accuracy": float(rng.uniform()),
        "macro_f1": float(rng.uniform()),
        "return": {"ic": None, "mae": float(rng.uniform())},
        "confusion": [[1, 0, 0], [0, 2, 0], [0, 0, 3]],
    }
    metrics = {"val": part, "test": part, "train_loss": 1.5, "val_loss": 2.5, "best_epoch": 2, "epochs": epochs}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "bundle.json").write_text(json.dumps({"ticker": folder.name, "model_sha256": "ab" * 32, "seed": seed}))
    rows = ["epoch,train_loss,val_loss,val_macro_f1,val_mae,learning_rate"]
    rows += [
        f"{epoch},{3 - epoch / 10},{4 - epoch / 10},{'' if epoch == epochs else 0.3},0.01,0.001"
        for epoch in range(1, epochs + 1)
    ]
    (folder / "history.csv").write_text("\n".join(rows) + "\n")
    (folder / "model.pt").write_bytes(rng.bytes(1000))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs beside one sqlite store for the whole module, since making the tables takes seconds."""
    return tmp_path_factory.mktemp("tracking") / "runs"


@pytest.fixture
def client(store: Path) -> Iterator[Any]:
    """An independent client on the same store."""
    from mlflow.tracking import MlflowClient

    yield MlflowClient(tracking_uri=default_uri(store))


def open_tracker(runs: Path, run_id: str) -> Tracker:
    """A tracker on the default store beside `runs`."""
    return Tracker.open(None, runs=runs, run_id=run_id, config=CONFIG)


def runs_of(client: Any, parent: str) -> dict[str, Any]:
    """The children of a parent run, by name."""
    experiment = client.get_experiment_by_name("b3dist").experiment_id
    return {
        run.info.run_name: run for run in client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    }


def test_fleet_becomes_a_parent_and_a_child_per_asset(store: Path, client: Any) -> None:
    """Params, metrics, history and artifacts of each asset are in its child; undefined numbers are absent, not 0."""
    tracker = open_tracker(store, "fleet-a")
    folders = [
        write_bundle(store / "fleet-a" / "assets" / ticker, seed=seed) for seed, ticker in enumerate(("PETR4", "VALE3"))
    ]
    for folder in folders:
        tracker.log_asset(folder)
    tracker.log_failure("OGXP3", "worker died twice")
    result = tracker.finish({"trained": 2, "failed": 1, "details": {"OGXP3": "worker died twice"}})

    assert (result.logged, result.already_logged, result.not_logged) == (3, 0, {})
    parent = client.get_run(result.run_id)
    assert (parent.info.run_name, parent.info.status, parent.data.metrics["trained"]) == ("fleet-a", "FINISHED", 2)
    assert parent.data.params["loss.gamma"] == "3.0"
    children = runs_of(client, result.run_id)
    assert {name: run.info.status for name, run in children.items()} == {
        "PETR4": "FINISHED",
        "VALE3": "FINISHED",
        "OGXP3": "FAILED",
    }
    assert children["OGXP3"].data.tags["b3dist.error"] == "worker died twice"
    petr4, metrics = children["PETR4"], json.loads((folders[0] / "metrics.json").read_text())
    assert petr4.data.metrics["test.accuracy"] == metrics["test"]["accuracy"]
    assert "test.return.ic" not in petr4.data.metrics
    assert petr4.data.params == {"ticker": "PETR4", "model_sha256": "ab" * 32, "seed": "0"}
    history = client.get_metric_history(petr4.info.run_id, "epoch.val_loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.9), (2, 3.8), (3, 3.7), (4, 3.6)]
    assert len(client.get_metric_history(petr4.info.run_id, "epoch.val_macro_f1")) == 3


def test_artifacts_are_the_bundles_bytes(store: Path, client: Any) -> None:
    """The artifacts a client downloads equal the bundle's files."""
    tracker = open_tracker(store, "fleet-artifacts")
    folder = write_bundle(store / "fleet-artifacts" / "assets" / "ITUB4")
    tracker.log_asset(folder)
    result = tracker.finish({"trained": 1, "note": "ç"})
    child = runs_of(client, result.run_id)["ITUB4"].info.run_id
    for name in ("metrics.json", "history.csv", "bundle.json", "model.pt"):
        assert Path(client.download_artifacts(child, name)).read_bytes() == (folder / name).read_bytes()
    summary = json.loads(Path(client.download_artifacts(result.run_id, "summary.json")).read_text(encoding="utf-8"))
    assert summary == {"trained": 1, "note": "ç"}


def test_parent_holds_totals_and_medians(store: Path, client: Any) -> None:
    """Nights are compared by the parent's numbers: totals, and medians over the assets that have the number."""
    digests = [{"ic": 0.1, "accuracy": 0.9}, {"ic": None, "accuracy": 0.8}, {"ic": 0.3, "accuracy": 0.5}]
    assets = [{"ticker": f"AAAA{i}", "metrics": digest} for i, digest in enumerate(digests)]
    assets.append({"ticker": "OGXP3", "metrics": None})
    summary = {"totals": {"trained": 3}, "times": {"ended_at": 1.7e9}, "assets": assets}
    result = open_tracker(store, "fleet-medians").finish(summary)
    metrics = client.get_run(result.run_id).data.metrics
    assert metrics == {"totals.trained": 3, "median.ic": pytest.approx(0.2), "median.accuracy": 0.8}


def test_resumed_run_continues_its_parent(store: Path, client: Any) -> None:
    """Opened again, a run logs only what is missing, and an asset that failed before can finish."""
    first = open_tracker(store, "fleet-resumed")
    petr4 = write_bundle(store / "fleet-resumed" / "assets" / "PETR4")
    first.log_asset(petr4)
    first.log_failure("VALE3", "disk full")
    before = first.finish({"trained": 1}, status="KILLED")
    finished = runs_of(client, before.run_id)["PETR4"]

    second = open_tracker(store, "fleet-resumed")
    second.log_asset(petr4)
    second.log_asset(write_bundle(store / "fleet-resumed" / "assets" / "VALE3"))
    after = second.finish({"trained": 2})

    assert after.run_id == before.run_id
    assert (after.logged, after.already_logged) == (1, 1)
    children = runs_of(client, after.run_id)
    assert {name: run.info.status for name, run in children.items()} == {"PETR4": "FINISHED", "VALE3": "FINISHED"}
    assert children["PETR4"].info.end_time == finished.info.end_time
    assert client.get_run(after.run_id).info.status == "FINISHED"


def test_half_logged_asset_is_completed_without_doubles(store: Path, client: Any) -> None:
    """A child whose driver was killed between its metrics and its end gets the rest, and each metric once."""
    tracker = open_tracker(store, "fleet-half")
    folder = write_bundle(store / "fleet-half" / "assets" / "ABEV3")
    tracker.log_asset(folder)
    result = tracker.finish({})
    child = runs_of(client, result.run_id)["ABEV3"].info.run_id
    client.update_run(child, status="RUNNING")

    again = open_tracker(store, "fleet-half")
    again.log_asset(folder)
    assert again.finish({}).logged == 1
    assert len(client.get_metric_history(child, "epoch.val_loss")) == 4
    assert client.get_run(child).info.status == "FINISHED"


def test_damaged_bundle_is_reported_not_raised(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the store could not take is in the result with its reason; the others are logged."""
    tracker = open_tracker(store, "fleet-damaged")
    good = write_bundle(store / "fleet-damaged" / "assets" / "PETR4")
    bad = write_bundle(store / "fleet-damaged" / "assets" / "VALE3")
    (bad / "metrics.json").unlink()
    with caplog.at_level(logging.WARNING, logger="b3dist.tracking"):
        tracker.log_asset(bad)
        tracker.log_asset(good)
        result = tracker.finish({"trained": 2})
    assert result.logged == 1
    assert list(result.not_logged) == ["VALE3"]
    assert "FileNotFoundError" in result.not_logged["VALE3"]
    assert "VALE3" in caplog.text


def test_store_lost_midway_keeps_the_run_going(tmp_path: Path) -> None:
    """With the tables gone every asset is reported as not logged, and after three failures the store is left alone."""
    import sqlite3

    runs = tmp_path / "runs"
    tracker = open_tracker(runs, "fleet-lost")
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("ALTER TABLE runs RENAME TO lost")
    connection.close()
    tickers = [f"AAAA{number}" for number in range(3, 8)]
    for ticker in tickers:
        tracker.log_asset(write_bundle(runs / "fleet-lost" / "assets" / ticker))
    result = tracker.finish({"trained": 5})
    assert set(result.not_logged) == {*tickers, "summary"}
    assert result.logged == 0
    assert "not tried" in result.not_logged["AAAA7"]


@pytest.mark.parametrize(
    ("uri", "named"),
    [("sqlite:////proc/nowhere/mlflow.db", "/proc/nowhere"), ("postgresql://me:secret@localhost:1/none", "me:***@")],
)
def test_unusable_store_is_refused_before_training(tmp_path: Path, uri: str, named: str) -> None:
    """A store that cannot be opened is one clear error naming it, without its password."""
    with pytest.raises(ConfigError, match="cannot open the tracking store") as caught:
        Tracker.open(uri, runs=tmp_path / "runs", run_id="r", config=CONFIG)
    assert named in str(caught.value)
    assert "secret" not in str(caught.value)


def test_database_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    """MLflow itself would try for two minutes; a folder in the file's place fails for everybody, root too."""
    (tmp_path / "mlflow.db").mkdir()
    started = time.monotonic()
    with pytest.raises(ConfigError, match="unable to open database file") as caught:
        Tracker.open(None, runs=tmp_path / "runs", run_id="r", config=CONFIG)
    assert time.monotonic() - started < 20
    assert "--no-mlflow" in (caught.value.hint or "")


def test_database_that_is_only_read_is_told_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through MLflow it would be a traceback and an advice on its internals."""
    runs = tmp_path / "runs"
    Tracker.open(None, runs=runs, run_id="r", config=CONFIG).finish({})
    really = sqlite3.connect

    def read_only(file: Any, **options: Any) -> sqlite3.Connection:
        """As a user without the right to write gets it; root has all rights."""
        return really(f"file:{file}?mode=ro", **{**options, "uri": True})

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with pytest.raises(ConfigError, match="OperationalError: attempt to write a readonly database"):
        Tracker.open(None, runs=runs, run_id="r", config=CONFIG)
    assert not caplog.records


def test_pickles_are_refused_and_usage_is_not_reported(store: Path) -> None:
    """An open store switches off MLflow's unpickling and its usage reporting."""
    import os

    open_tracker(store, "fleet-env").finish({})
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_trials_of_a_sweep_are_children_of_their_own(tmp_path: Path) -> None:
    """With parameters, numbers and the curve by epoch; a resumed sweep logs none twice, a failed one says why."""
    from mlflow.tracking import MlflowClient

    for _ in range(2):
        tracker = Tracker.open(None, runs=tmp_path / "runs", run_id="20260101-000000-abcd", config={}, kind="sweep")
        curve = {1: 0.3, 2: 0.4}
        params, metrics = {"loss.gamma": 2.5}, {"val.macro_f1": 0.4}
        tracker.log_trial(0, params=params, metrics=metrics, curve=curve, tags={"b3dist.source": "start"})
        tracker.log_trial(1, params=params, metrics={}, curve={}, tags={}, error="PETR4 diverged at epoch 1")
        result = tracker.finish({"totals": {"trials": 2}})
    assert (result.logged, result.already_logged, dict(result.not_logged)) == (0, 2, {})
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("b3dist")
    children = client.search_runs([experiment.experiment_id], "tags.`b3dist.kind` = 'trial'")
    found = {one.info.run_name: one for one in children}
    assert set(found) == {"trial-000", "trial-001"}
    assert (found["trial-000"].info.status, found["trial-001"].info.status) == ("FINISHED", "FAILED")
    assert found["trial-000"].data.params == {"loss.gamma": "2.5"}
    assert found["trial-001"].data.tags["b3dist.error"] == "PETR4 diverged at epoch 1"
    history = client.get_metric_history(found["trial-000"].info.run_id, "epoch.val_macro_f1")
    assert [(one.step, one.value) for one in history] == [(1, 0.3), (2, 0.4)]
