"""The demo: its parts without Ray, and all of it once."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from b3dist.cli.demo import mean_test_numbers, prepare_lake, show
from b3dist.errors import ConfigError
from tests.cli.conftest import Outcome


def test_market_and_lake_are_made_once(tmp_path: Path) -> None:
    """A second demo finds the same market, and a lake with nothing new to take in."""
    first = prepare_lake(tmp_path / "demo", assets=2, sessions=150)
    again = prepare_lake(tmp_path / "demo", assets=2, sessions=150)
    assert first.manifest_hash == again.manifest_hash
    assert again.tickers()["num_sessions"].tolist() == [150, 150]


def test_demo_of_another_size_is_refused(tmp_path: Path) -> None:
    """Two markets never mix in one lake."""
    prepare_lake(tmp_path / "demo", assets=2, sessions=150)
    with pytest.raises(ConfigError, match="holds a demo of 2 assets x 150 sessions, got 3 x 150"):
        prepare_lake(tmp_path / "demo", assets=3, sessions=150)


def test_means_leave_out_what_is_undefined(tmp_path: Path) -> None:
    """Assets whose correlation is null do not count; with none left the mean is None."""
    for ticker, ic in (("A", 0.2), ("B", None), ("C", 0.1)):
        (tmp_path / "assets" / ticker).mkdir(parents=True)
        metrics = {"test": {"return": {"ic": ic}, "accuracy": 0.5, "baselines": {"majority": {"accuracy": 0.6}}}}
        (tmp_path / "assets" / ticker / "metrics.json").write_text(json.dumps(metrics))
    means = mean_test_numbers(tmp_path)
    assert (means["ic"], means["accuracy"], means["majority_accuracy"]) == pytest.approx((0.15, 0.5, 0.6))
    assert means["macro_f1"] is None
    assert set(mean_test_numbers(tmp_path / "assets").values()) == {None}


def test_answer_names_baselines_durations_and_the_simulation(tmp_path: Path) -> None:
    """Each number stands beside what costs nothing, the three durations have their names, and nothing looks real."""
    numbers = {"ic": 0.24, "rmse": 0.0261, "persistence_rmse": 0.0268, "macro_f1": 0.41, "majority_macro_f1": None}
    means = {**numbers, "accuracy": 0.51, "majority_accuracy": 0.55}
    times = {"train_seconds": 41.2, "wall_seconds": 59.6, "seconds": 75.1}
    console = Console(width=100)
    with console.capture() as captured:
        made = {"path": "demo/runs/x", "report": "r.html", "release_id": "20261122-x", "scores": "s.parquet"}
        show(console, {"trained": 24, **made, "mean_test": means, **times})
    text = captured.get()
    assert "(training 41 s, fleet 60 s, all 75 s)" in text
    assert "Simulated market" in text
    lines = {line.split("  ")[0].strip(): line.split() for line in text.splitlines()}
    assert {"0.0261", "0.0268"} <= set(lines["RMSE of the return"])
    assert {"0.4100", "-"} <= set(lines["macro F1 of the action"])
    assert {"0.5100", "0.5500"} <= set(lines["accuracy of the action"])


@pytest.mark.ray
def test_demo_ends_with_a_report(b3dist: Callable[..., Outcome], tmp_path: Path) -> None:
    """The whole path offline: every asset trained, released and scored, one HTML page, keys of the contract."""
    done = b3dist("demo", "--out", tmp_path / "demo", "--assets", 2, "--sessions", 1020, "--json")
    assert done.exit_code == 0, done.stderr
    assert (done.answer["trained"], done.answer["failed"]) == (2, 0)
    assert (tmp_path / "demo" / "runs" / done.answer["run_id"] / "summary.json").is_file()
    scores = pq.read_table(done.answer["scores"]).to_pylist()
    assert [score["ticker"] for score in scores] == ["SIMA3", "SIMA4"]
    assert {score["release_id"] for score in scores} == {done.answer["release_id"]}
    assert json.loads((tmp_path / "demo/releases/aliases.json").read_text())["champion"] == done.answer["release_id"]
    page = Path(done.answer["report"]).read_text(encoding="utf-8")
    assert "SIMA3" in page
    assert "SIMA4" in page
    assert "Simulated market: a predictor with IC 0.30 is planted" in page
    assert done.answer["train_seconds"] <= done.answer["wall_seconds"] <= done.answer["seconds"]
