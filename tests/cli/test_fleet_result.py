"""What a person is told at the end of a fleet: scores beside what costs nothing, and what to do next."""

from pathlib import Path
from typing import Any

from rich.console import Console

from b3dist.cli.fleet_result import show_result
from tests.report.run_builder import make_run, warm_start


def entry(ticker: str, macro_f1: float, return_mae: float) -> dict[str, Any]:
    """A trained asset of summary.json."""
    metrics = {
        "macro_f1": macro_f1,
        "majority_macro_f1": 0.3,
        "return_mae": return_mae,
        "persistence_return_mae": 0.02,
    }
    return {"ticker": ticker, "state": "trained", "metrics": metrics}


def shown(run: Path, entries: list[dict[str, Any]]) -> str:
    """The text."""
    console = Console(record=True, width=120)
    show_result(console, run, entries)
    return console.export_text()


def test_means_stand_beside_baselines_and_the_report_is_named(tmp_path: Path) -> None:
    """More is better of macro F1, less of the error; assets without a model do not count."""
    run = make_run(tmp_path)
    failed = {"ticker": "OGXP3", "state": "failed", "metrics": None}
    text = shown(run, [entry("PETR4", 0.5, 0.03), entry("VALE3", 0.2, 0.05), failed])
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "macro F1 0.3500 0.3000 most frequent action 1 of 2" in rows
    assert "return error (MAE) 0.0400 0.0200 no change 0 of 2" in rows
    assert f"next: b3dist report {run.name} --runs {tmp_path}" in rows
    assert "started from" not in text


def test_a_fleet_without_a_model_has_no_result(tmp_path: Path) -> None:
    """Nor a report to look at."""
    assert not shown(make_run(tmp_path, trained=[]), [{"ticker": "A", "state": "failed", "metrics": None}])


def test_undefined_scores_are_left_out_of_the_means(tmp_path: Path) -> None:
    """An asset whose price never moves has no error to compare."""
    still = entry("VALE3", 0.2, 0.05)
    still["metrics"]["return_mae"] = None
    rows = [
        " ".join(line.split()) for line in shown(make_run(tmp_path), [entry("PETR4", 0.5, 0.03), still]).splitlines()
    ]
    assert "return error (MAE) 0.0300 0.0200 no change 0 of 1" in rows


def test_a_warm_start_says_where_from_and_what_was_kept(tmp_path: Path) -> None:
    """Which source models were the asset's, which the pooled one, which none; a damaged bundle is named."""
    run = make_run(tmp_path, trained=["PETR4", "VALE3", "ITUB4"])
    warm_start(run, "R0", {"PETR4": ("PETR4", 0), "VALE3": ("pooled", 2), "ITUB4": (None, 3)})
    told = shown(run, [entry("PETR4", 0.5, 0.03)])
    assert "started from run R0: 1 from their own models, 1 from the pooled model as a whole, 1 from scratch" in told
    assert "1 of 3 kept the start as it came (epoch 0)" in told.replace("\n", " ")
    assert "test parts of 2 assets, start to kept: macro F1" in told
    (run / "assets" / "PETR4" / "bundle.json").write_text("{")
    assert "PETR4 is no complete bundle" in shown(run, [entry("PETR4", 0.5, 0.03)])
