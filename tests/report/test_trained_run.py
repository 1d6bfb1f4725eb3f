"""What the trainer really writes goes through tracking and report unchanged."""

import json
from pathlib import Path

import pandas as pd
import pytest

from b3dist.config import Config
from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.report.asset_view import asset_view
from b3dist.report.page import render
from b3dist.report.run_record import read_asset, read_run
from b3dist.tracking import Tracker, default_uri
from b3dist.training.asset import train_asset
from tests.report.run_builder import make_run

CONFIG = Config().with_overrides(["data.min_sessions=300", "training.epochs=2", "data.label_set=forward_return"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An asset of a simulated market, trained for two epochs inside a run's folder."""
    folder = tmp_path_factory.mktemp("trained")
    simulate(folder / "files", assets=3, sessions=420, seed=11)
    ingest([folder / "files"], folder / "lake")
    lake = Lake(folder / "lake")
    tickers = lake.tickers()
    ticker = str(tickers.loc[tickers["num_sessions"].idxmax(), "ticker"])
    assets = make_run(folder / "runs", trained=[]) / "assets"
    return train_asset(lake, ticker, CONFIG, assets).path


def test_view_tells_what_the_predictions_say(bundle: Path) -> None:
    """Nothing is missing, and each series of the charts is the stored one to the digits it is drawn with."""
    view = asset_view(read_asset(bundle))
    assert view["missing"] == []
    frame = pd.read_parquet(bundle / "predictions.parquet")
    for name in ("val", "test"):
        stored, part = frame[frame["split"] == name], view["parts"][name]
        days = pd.to_timedelta([0, *part["days"]], unit="D").to_series().cumsum()
        sessions = pd.Timestamp(part["first"]) + days
        assert [str(session.date()) for session in sessions] == [str(session) for session in stored["session"]]
        assert part["close"] == pytest.approx(stored["close"].tolist(), rel=1e-4)
        assert part["predicted_bp"] == pytest.approx((1e4 * stored["return_pred"]).tolist(), rel=1e-3)
        assert part["action"] == "".join("bsh"[action] for action in stored["action"])
        assert part["truth"] == "".join("bsh"[action] for action in stored["y_action"])
        hold = part["reliability"]["hold"]
        windows = sum(count for _, _, count in hold)
        observed = sum(share * count for _, share, count in hold) / windows
        assert (windows, observed) == (len(stored), pytest.approx((stored["y_action"] == 2).mean(), rel=1e-3))
    assert view["history"]["epoch"] == [1, 2]
    assert set(view["facts"]["splits"]) == {"train", "val", "test"}


def test_page_is_rendered(bundle: Path) -> None:
    """The page names the asset and the period from its first training window to its last test window."""
    run = read_run(bundle.parents[2], bundle.parents[1].name)
    text = render(run)
    splits = json.loads((bundle / "bundle.json").read_text())["splits"]
    assert f"from {splits['train']['first']} to {splits['test']['last']}" in text
    assert f'"ticker":"{bundle.name}"' in text


def test_tracked_numbers_are_the_files(bundle: Path) -> None:
    """Every defined test number of metrics.json that MLflow is told is the file's, and the splits are parameters."""
    from mlflow.tracking import MlflowClient

    runs = bundle.parents[2]
    tracker = Tracker.open(None, runs=runs, run_id=bundle.parents[1].name, config=CONFIG.to_dict())
    tracker.log_asset(bundle)
    result = tracker.finish({"totals": {"trained": 1}})
    assert (result.logged, result.not_logged) == (1, {})
    client = MlflowClient(tracking_uri=default_uri(runs))
    experiment = client.get_experiment_by_name("b3dist").experiment_id
    (child,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{result.run_id}'")
    metrics = json.loads((bundle / "metrics.json").read_text())
    logged = child.data.metrics
    assert logged["test.accuracy"] == metrics["test"]["accuracy"]
    assert logged["test.price.r2"] == metrics["test"]["price"]["r2"]
    persistence = metrics["test"]["baselines"]["persistence"]
    assert logged["test.baselines.persistence.return.mae"] == persistence["return"]["mae"]
    assert logged["best_epoch"] == metrics["best_epoch"]
    assert (
        child.data.params["splits.test.last"]
        == json.loads((bundle / "bundle.json").read_text())["splits"]["test"]["last"]
    )
