"""One asset end to end from a real lake: files, agreement with scikit-learn, determinism."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from b3dist.config import Config
from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.errors import InsufficientDataError
from b3dist.training.asset import load_asset, train_asset
from b3dist.training.bundle import FILES, read_bundle

CONFIG = Config().with_overrides(["data.min_sessions=300", "training.epochs=2"])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    folder = tmp_path_factory.mktemp("market")
    simulate(folder / "files", assets=3, sessions=420, seed=11)
    ingest([folder / "files"], folder / "lake")
    return Lake(folder / "lake")


@pytest.fixture(scope="module")
def ticker(lake: Lake) -> str:
    tickers = lake.tickers()
    return str(tickers.loc[tickers["num_sessions"].idxmax(), "ticker"])


def test_metrics_can_be_recomputed_from_the_predictions(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """Every file of the contract is there, and metrics.json equals scikit-learn on predictions.parquet to 1e-9."""
    trained = train_asset(lake, ticker, CONFIG, tmp_path)
    assert sorted(path.name for path in trained.path.iterdir()) == sorted(FILES)
    metrics = json.loads((trained.path / "metrics.json").read_text())
    predictions = pd.read_parquet(trained.path / "predictions.parquet")
    for name in ("val", "test"):
        part, found = predictions[predictions["split"] == name], metrics[name]
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(part["y_action"], part["action"]), abs=1e-9)
        macro = sk.f1_score(part["y_action"], part["action"], average="macro", zero_division=0)
        assert found["macro_f1"] == pytest.approx(macro, abs=1e-9)
        price = part["close"] * (1 + part["return_pred"])
        assert found["price"]["r2"] == pytest.approx(sk.r2_score(part["future_close"], price), abs=1e-9)
        assert found["price"]["mape"] == pytest.approx(
            sk.mean_absolute_percentage_error(part["future_close"], price), abs=1e-9
        )
        np.testing.assert_allclose(part["y_return"], part["future_close"] / part["close"] - 1, atol=1e-12)
        np.testing.assert_allclose(part[["p_buy", "p_sell", "p_hold"]].sum(axis=1), 1.0)
        assert (part[["p_buy", "p_sell", "p_hold"]].to_numpy().argmax(axis=1) == part["action"]).all()
    assert metrics["overfit_gap"] == metrics["val_loss"] - metrics["train_loss"]
    assert metrics["epochs"] == 2
    assert trained.windows_trained == 2 * trained.num_train_windows


def test_history_and_bundle_agree_with_the_metrics(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """The kept epoch's line of history.csv holds the validation loss of metrics.json; the bundle names its origin."""
    trained = train_asset(lake, ticker, CONFIG, tmp_path)
    history = pd.read_csv(trained.path / "history.csv")
    expected = ["epoch", "train_loss", "val_loss", "val_macro_f1", "val_mae", "learning_rate"]
    assert list(history.columns) == expected
    kept = history.set_index("epoch").loc[trained.metrics["best_epoch"]]
    assert kept["val_loss"] == trained.metrics["val_loss"]
    facts = read_bundle(trained.path).facts
    assert facts["lake_manifest_hash"] == lake.manifest_hash
    assert facts["anchor"] == facts["splits"]["train"]["last"]
    assert facts["config"] == CONFIG.to_dict()


def test_stored_weights_give_the_stored_predictions(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """Reading the bundle back and stepping the last test window through it reproduces its row."""
    import torch

    trained = train_asset(lake, ticker, CONFIG, tmp_path)
    bundle, data = read_bundle(trained.path), load_asset(lake, ticker, CONFIG)
    window = torch.from_numpy(data.features[data.test.ends[-1] - 31 : data.test.ends[-1] + 1])[None]
    with torch.inference_mode():
        logits, returns = bundle.model(window)
    row = pd.read_parquet(trained.path / "predictions.parquet").iloc[-1]
    probabilities = torch.softmax(logits[0].double(), dim=0).tolist()
    assert probabilities == pytest.approx([row["p_buy"], row["p_sell"], row["p_hold"]], abs=1e-6)
    assert float(bundle.return_target.decode(returns.double())[0]) == pytest.approx(row["return_pred"], abs=1e-7)


def test_two_trainings_write_the_same_bits(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """Same lake, configuration and seed: model.pt, predictions and metrics are equal to the byte."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        train_asset(lake, ticker, CONFIG, folder)
    for name in ("model.pt", "predictions.parquet", "metrics.json", "history.csv", "bundle.json"):
        first, second = ((folder / ticker / name).read_bytes() for folder in folders)
        assert first == second, name


def test_a_short_history_is_skipped_by_rule(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """The card's 1,000 sessions are not there: InsufficientDataError, and nothing is written."""
    with pytest.raises(InsufficientDataError, match="expected at least 1000"):
        train_asset(lake, ticker, Config(), tmp_path)
    assert list(tmp_path.iterdir()) == []
