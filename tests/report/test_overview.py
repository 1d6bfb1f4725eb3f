"""The scoreboard: medians, and who beats whom."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, mean_absolute_error

from b3dist.report.overview import Comparison, Row, asset_row, compare, skill_gate
from tests.report.run_builder import make_bundle


def part(accuracy: float | None, majority: float, ic: float | None, ratio: float) -> dict[str, Any]:
    """The corner of a metrics.json part that these tests look at."""
    naive = {"mae": 0.02, "rmse": 0.03}
    return {
        "num_windows": 900,
        "accuracy": accuracy,
        "return": {"ic": ic, "mae": 0.02 * ratio, "rmse": 0.03 * ratio},
        "baselines": {"majority": {"accuracy": majority}, "persistence": {"return": naive}},
    }


def by_name(rows: list[Row], split: str = "test") -> dict[str, Comparison]:
    """The scoreboard by measure."""
    return {one.measure.name: one for one in compare(rows, split)}


def test_row_holds_the_numbers_of_the_predictions(tmp_path: Path) -> None:
    """A row's numbers are those scikit-learn and SciPy compute from the stored predictions."""
    folder = make_bundle(tmp_path / "PETR4", seed=4)
    row = asset_row("PETR4", json.loads((folder / "metrics.json").read_text()))
    frame = pq.read_table(folder / "predictions.parquet").to_pandas()
    test = frame[frame["split"] == "test"]
    assert row["test"]["macro_f1"] == pytest.approx(f1_score(test["y_action"], test["action"], average="macro"))
    assert row["test"]["ic"] == pytest.approx(pearsonr(test["y_return"], test["return_pred"]).statistic)
    ratio = mean_absolute_error(test["y_return"], test["return_pred"]) / np.abs(test["y_return"]).mean()
    assert row["test"]["mae_ratio"] == pytest.approx(ratio)


def test_better_is_strict_and_undefined_assets_do_not_count() -> None:
    """A tie with the baseline is no win, a smaller error is one, and an undefined number leaves the asset out."""
    rows = [
        asset_row("AAAA3", {"test": part(0.9, 0.8, 0.1, 0.9)}),
        asset_row("BBBB3", {"test": part(0.8, 0.8, None, 1.0)}),
        asset_row("CCCC3", {"test": part(None, 0.8, -0.2, 1.5)}),
    ]
    board = by_name(rows)
    assert (board["Accuracy"].better, board["Accuracy"].assets) == (1, 2)
    assert board["Accuracy"].model == pytest.approx(0.85)
    assert (board["IC"].better, board["IC"].assets, board["IC"].baseline) == (1, 2, 0.0)
    assert (board["Return MAE ÷ persistence"].better, board["Return MAE ÷ persistence"].assets) == (1, 3)
    assert board["Return MAE ÷ persistence"].model == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ic", "windows", "better"), [(0.066, 900, 0), (0.067, 900, 1), (-0.2, 900, 0), (0.9, None, 0)]
)
def test_a_correlation_is_better_beyond_two_standard_errors(ic: float, windows: int | None, better: int) -> None:
    """2 / sqrt(900) = 0.0667 above zero, not a hair above it; without the number of windows nothing can be said."""
    row = asset_row("AAAA3", {"test": {**part(0.9, 0.8, ic, 1.0), "num_windows": windows}})
    assert by_name([row])["IC"].better == better


def test_nothing_known_is_a_row_of_nothing() -> None:
    """An asset without metrics has a row whose numbers are all None, and no share anywhere."""
    row = asset_row("AAAA3", {})
    assert set(row["test"].values()) == {None}
    assert all((one.model, one.baseline, one.share) == (None, None, None) for one in compare([row], "test"))


def test_persistence_without_error_has_no_ratio() -> None:
    """A constant price leaves persistence without error; the ratio is undefined, not infinite."""
    metrics = part(0.9, 0.8, 0.1, 1.0)
    metrics["baselines"]["persistence"]["return"] = {"mae": 0.0, "rmse": 0.0}
    assert asset_row("AAAA3", {"test": metrics})["test"]["mae_ratio"] is None


def test_skill_gate_counts_passes_among_the_judged() -> None:
    """An asset without a p-value is not judged; a suspicious one is named."""
    skills = [
        {"p_value": 0.01, "beats_persistence": True, "suspicious": True},
        {"p_value": 0.05, "beats_persistence": False, "suspicious": False},
        {"p_value": None, "beats_persistence": False, "suspicious": False},
    ]
    rows = [asset_row(f"AAAA{i}", {"test": {"skill": skill}}) for i, skill in enumerate(skills)]
    assert skill_gate(rows, "test") == (1, 2, ["AAAA0"])
    assert skill_gate(rows, "val") == (0, 0, [])
