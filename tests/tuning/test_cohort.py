"""A trial trains its assets exactly as a fleet would: its score is that of the metrics the fleet would write."""

import numpy as np
import pytest

from b3dist.config import Config
from b3dist.data.windows import AssetData, prepare_asset
from b3dist.errors import TrainingError
from b3dist.training.evaluation import evaluate_predictions, tabulate_predictions
from b3dist.training.metrics import macro_f1_of
from b3dist.training.trainer import fit_asset
from b3dist.tuning.cohort import CohortTraining, evaluate_asset
from b3dist.tuning.scores import CohortScore
from tests.conftest import make_columns

CONFIG = Config().with_overrides(
    ["data.min_sessions=100", "training.epochs=4", "training.patience=2", "data.label_set=forward_return"]
)


@pytest.fixture(scope="module")
def assets() -> list[AssetData]:
    """Three assets of different length."""
    prepared = []
    for seed, rows in ((1, 260), (2, 300), (3, 340)):
        columns = make_columns(rows, seed=seed)
        prepared.append(prepare_asset(f"TST{seed}", columns, columns["session"], CONFIG.data))
    return prepared


def test_a_trials_last_report_is_what_the_fleet_would_write(assets: list[AssetData]) -> None:
    """The summed confusion matrices and error ratios of metrics.json of every asset trained alone."""
    training = CohortTraining(assets, CONFIG)
    reports = []
    while not training.finished:
        reports.append(training.advance())
    assert [report.epoch for report in reports] == list(range(1, len(reports) + 1))
    assert [report.finished for report in reports] == [False] * (len(reports) - 1) + [True]
    confusion, ratios = np.zeros((3, 3), dtype=np.int64), []
    for data in assets:
        fit = fit_asset(data, CONFIG)
        metrics = evaluate_predictions(tabulate_predictions(data, fit, CONFIG), "val", CONFIG.data.horizon)
        confusion += np.array(metrics["confusion"])
        ratios.append(metrics["return"]["rmse"] / metrics["baselines"]["persistence"]["return"]["rmse"])
    assert reports[-1].score.macro_f1 == pytest.approx(float(macro_f1_of(confusion)), abs=1e-12)
    assert reports[-1].score.error_ratio == pytest.approx(float(np.exp(np.mean(np.log(ratios)))), abs=1e-9)


def test_the_evaluation_of_an_asset_is_its_metrics(assets: list[AssetData]) -> None:
    """On both parts; the test part is the one that judges winners."""
    data = assets[0]
    predictions = tabulate_predictions(data, fit_asset(data, CONFIG), CONFIG)
    scores = evaluate_asset(data, CONFIG)
    for part in ("val", "test"):
        metrics = evaluate_predictions(predictions, part, CONFIG.data.horizon)
        assert scores[part].confusion.tolist() == metrics["confusion"]
        assert CohortScore.pooled([scores[part]]).error_ratio == pytest.approx(
            metrics["return"]["rmse"] / metrics["baselines"]["persistence"]["return"]["rmse"]
        )


def test_a_diverging_asset_ends_the_trial_with_its_name(assets: list[AssetData]) -> None:
    """The sweep records it as the trial's error."""
    training = CohortTraining(assets, CONFIG.with_overrides(["training.learning_rate=1e30"]))
    with pytest.raises(TrainingError, match="TST1 diverged"):
        training.advance()
