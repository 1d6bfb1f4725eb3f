"""The main job on real B3 files through the command line: every file of the contract, every metric recomputed."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sk

from b3dist.training.bundle import FILES, read_bundle


def answer_of(*arguments: str) -> dict[str, Any]:
    finished = subprocess.run([sys.executable, "-m", "b3dist", *arguments, "--json"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def assert_recomputed(metrics: dict[str, Any], part: pd.DataFrame) -> None:
    """metrics.json's numbers of one part equal scikit-learn's and SciPy's on the stored predictions to 1e-9."""
    truth, predicted = part["y_action"], part["action"]
    price = part["close"] * (1 + part["return_pred"])
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "macro_f1": sk.f1_score(truth, predicted, average="macro", zero_division=0),
        "weighted_f1": sk.f1_score(truth, predicted, average="weighted", zero_division=0),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-9), name
    assert metrics["confusion"] == sk.confusion_matrix(truth, predicted, labels=[0, 1, 2]).tolist()
    scores = sk.precision_recall_fscore_support(truth, predicted, labels=[0, 1, 2], zero_division=0)
    for index, action in enumerate(("buy", "sell", "hold")):
        for name, values in zip(("precision", "recall", "f1", "support"), scores, strict=True):
            assert metrics["per_class"][action][name] == pytest.approx(values[index], abs=1e-9)
    persistence = metrics["baselines"]["persistence"]
    for found, forecast in ((metrics, part["return_pred"]), (persistence, np.zeros(len(part)))):
        price = part["close"] * (1 + forecast)
        for space, y, y_hat in (("price", part["future_close"], price), ("return", part["y_return"], forecast)):
            assert found[space]["r2"] == pytest.approx(sk.r2_score(y, y_hat), abs=1e-9)
            assert found[space]["mae"] == pytest.approx(sk.mean_absolute_error(y, y_hat), abs=1e-9)
            assert found[space]["rmse"] == pytest.approx(sk.root_mean_squared_error(y, y_hat), abs=1e-9)
        mape = sk.mean_absolute_percentage_error(part["future_close"], price)
        assert found["price"]["mape"] == pytest.approx(mape, abs=1e-9)
    assert metrics["return"]["ic"] == pytest.approx(pearsonr(part["y_return"], part["return_pred"])[0], abs=1e-9)
    assert metrics["return"]["rank_ic"] == pytest.approx(spearmanr(part["y_return"], part["return_pred"])[0], abs=1e-9)
    majority = np.full(len(part), truth.mode()[0])
    assert metrics["baselines"]["majority"]["accuracy"] == pytest.approx(sk.accuracy_score(truth, majority), abs=1e-9)
    macro = sk.f1_score(truth, majority, average="macro", zero_division=0)
    assert metrics["baselines"]["majority"]["macro_f1"] == pytest.approx(macro, abs=1e-9)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_105_assets_train_and_their_metrics_can_be_recomputed(shared_data: Path, tmp_path: Path) -> None:
    """Ingest and fleet on the development data: 105 trained, six files each, every metric right to 1e-9."""
    ingested = answer_of("ingest", str(shared_data / "cotahist"), "--lake", str(tmp_path / "lake"))
    assert (ingested["bars"], ingested["tickers"]) == (181_930, 130)
    fleet = answer_of("fleet", "--lake", str(tmp_path / "lake"), "--runs", str(tmp_path / "runs"))
    assert (fleet["trained"], fleet["skipped"], fleet["failed"]) == (105, 25, 0)
    folders = sorted((Path(fleet["path"]) / "assets").iterdir())
    assert len(folders) == 105
    windows = 0
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        facts = read_bundle(folder).facts
        metrics = json.loads((folder / "metrics.json").read_text())
        windows += facts["splits"]["train"]["num_windows"] * metrics["epochs"]
        predictions = pd.read_parquet(folder / "predictions.parquet")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns about absent classes even with zero_division given
            for name in ("val", "test"):
                assert_recomputed(metrics[name], predictions[predictions["split"] == name])
    assert fleet["windows_trained"] == windows
