"""A warm-started run tells where each asset started, and whether training on made it better, on the same windows."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from b3dist.data.lake import Lake
from b3dist.distributed.assignments import Assignments
from b3dist.distributed.fleet.initial import InitialSource, warm_config
from b3dist.distributed.fleet.start_gains import Scores, gains_of
from b3dist.distributed.fleet.starts import Starts, describe_starts
from b3dist.distributed.summary import summarise
from b3dist.run_folder import RunFolder
from b3dist.tuning.scores import AssetScore
from tests.release.releases import train_run
from tests.training.pooled_runs import train_pooled_run


@pytest.fixture(scope="module")
def tickers(small_lake: Path) -> list[str]:
    """The lake's assets, shortest history first."""
    return list(Lake(small_lake).tickers().sort_values("num_sessions")["ticker"])


@pytest.fixture(scope="module")
def warm_run(small_lake: Path, tickers: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """All assets, from a pooled run that has no bundle for the last."""
    runs = tmp_path_factory.mktemp("starts") / "runs"
    source = InitialSource(kind="run", path=train_pooled_run(small_lake, runs, tickers=tickers[:-1]).path)
    config = warm_config(source).with_overrides(["training.epochs=3", "training.learning_rate=0.003"])
    return train_run(small_lake, runs, config=config, start=source)


def test_scores_of_start_and_kept_are_those_of_the_bundles(warm_run: RunFolder, tickers: list[str]) -> None:
    """Kept as the stored predictions say, the start beside it on as many windows; the counts add up."""
    starts = Starts.of_run(warm_run.path)
    assert starts is not None
    assert starts.counts == {"own": 0, "pooled": len(tickers) - 1, "whole": 1, "scratch": 0}
    assert starts.compared == len(starts.assets) == len(tickers)
    truths, actions, logs = [], [], []
    for asset in starts.assets:
        bundle = warm_run.assets / asset.ticker
        assert asset.unchanged == (json.loads((bundle / "metrics.json").read_text())["best_epoch"] == 0)
        rows = pq.read_table(bundle / "predictions.parquet", filters=[("split", "==", "test")])
        columns = {name: rows[name].to_numpy() for name in ("y_action", "action", "y_return", "return_pred")}
        truths.append(columns["y_action"])
        actions.append(columns["action"])
        error, nothing = (np.square(columns["y_return"] - less).sum() for less in (columns["return_pred"], 0.0))
        logs.append(np.log(error / nothing) / 2)
        scores = asset.scores["test"]
        np.testing.assert_array_equal(scores.start.confusion.sum(axis=1), scores.kept.confusion.sum(axis=1))
        assert scores.start.naive_squared_error == scores.kept.naive_squared_error
        assert asset.unchanged == (scores.start.squared_error == scores.kept.squared_error)
    f1, error_ratio = (one for one in starts.gains if one.part == "test")
    expected = f1_score(np.concatenate(truths), np.concatenate(actions), average="macro", zero_division=0)
    assert f1.kept == pytest.approx(expected)
    assert error_ratio.kept == pytest.approx(np.exp(np.mean(logs)))
    assert f1.change is not None
    assert f1.change.difference == pytest.approx(f1.kept - f1.start)
    assert error_ratio.change is not None
    assert error_ratio.change.low <= error_ratio.kept - error_ratio.start <= error_ratio.change.high


def test_summary_tells_of_all_and_of_each(warm_run: RunFolder, tickers: list[str]) -> None:
    """Plain JSON: totals and intervals, and every asset's scores."""
    assignments = Assignments(tickers, ledger_path=warm_run.ledger, assets_dir=warm_run.assets)
    assignments.open(pid=1, host="here")
    summary = summarise(warm_run, assignments, state="finished", started=0.0)
    assignments.close()
    told = json.loads(json.dumps(summary, allow_nan=False))["starts"]
    assert (told["pooled"], told["whole"], told["compared"]) == (5, 1, 6)
    assert told["test"]["macro_f1"]["change"]["num_assets"] == 6
    start_of = {entry["ticker"]: entry["start"] for entry in summary["assets"]}
    assert set(start_of) == set(tickers)
    assert start_of[tickers[-1]]["origin"] == "whole"
    assert set(start_of[tickers[0]]["val"]["start"]) == {"macro_f1", "error_ratio"}


def test_no_score_of_a_start_where_there_is_none(small_lake: Path, tickers: list[str], tmp_path: Path) -> None:
    """From scratch, or in an older bundle; damage is said and is no failure; a run started from nothing is silent."""
    source = train_run(small_lake, tmp_path / "runs", tickers=tickers[-1:])
    assert describe_starts(source.path) == (None, {})
    start = InitialSource(kind="run", path=source.path)
    run = train_run(small_lake, tmp_path / "runs", tickers=tickers[-2:], config=source.settings.config, start=start)
    told, by_ticker = describe_starts(run.path)
    assert told is not None
    assert (told["own"], told["scratch"], told["compared"]) == (1, 1, 1)
    assert told["test"]["macro_f1"]["change"] is None, "one asset cannot be drawn again"
    assert by_ticker[tickers[-2]] == {"origin": "scratch", "unchanged": False, "val": None, "test": None}
    path = run.assets / tickers[-1] / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["start"]
    path.write_text(json.dumps(metrics))
    older, _ = describe_starts(run.path)
    assert older is not None
    assert (older["own"], older["compared"], older["val"], older["test"]) == (1, 0, None, None)
    for part in ({"confusion": [1]}, {"return": {"rmse": float("nan")}}, {"num_windows": 1}, {"return": None}):
        start = {name: {**metrics[name], **part} for name in ("val", "test")}
        path.write_text(json.dumps({**metrics, "start": start}))
        assert "is no complete bundle" in (describe_starts(run.path)[0] or {})["problem"]
    config = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**config, "options": {"init_from": "R"}}))
    assert "config.json is damaged" in (describe_starts(run.path)[0] or {})["problem"]


def asset(rng: np.random.Generator, *, hits: int, error: float) -> AssetScore:
    """An asset with so many of its hundred windows right, give or take, and such an error."""
    right = int(np.clip(hits + rng.integers(-5, 6), 0, 100))
    return AssetScore(
        confusion=np.diag([right, right, right]) + np.roll(np.diag([100 - right] * 3), 1, axis=1),
        squared_error=error**2,
        naive_squared_error=1.0,
    )


def test_gains_say_which_way() -> None:
    """More hits and smaller errors are better, the other way round worse, chance is neither; five are too few."""
    rng = np.random.default_rng(5)
    good = [Scores(asset(rng, hits=50, error=1.02), asset(rng, hits=70, error=1.01)) for _ in range(12)]
    bad = [Scores(start=one.kept, kept=one.start) for one in good]
    chance = [Scores(*(asset(rng, hits=50, error=1 + rng.normal(0, 0.01)) for _ in range(2))) for _ in range(12)]
    for scores, expected in (
        (good, "better"),
        (bad, "worse"),
        (chance, "not told apart"),
        (good[:5], "too few assets"),
    ):
        gains = gains_of([{"test": one} for one in scores], seed=3)
        assert [(one.part, one.score) for one in gains] == [("test", "macro_f1"), ("test", "error_ratio")]
        assert [one.conclusion for one in gains] == [expected] * 2
    f1, error_ratio = gains_of([{"test": one} for one in good], seed=3)
    assert (f1.better, f1.worse, error_ratio.better, error_ratio.worse) == (12, 0, 12, 0)
    assert f1.in_words().startswith(f"macro F1 {f1.start:.4f} to {f1.kept:.4f} (better: 95% interval of the change +")
    still = AssetScore(confusion=np.eye(3, dtype=np.int64), squared_error=0.0, naive_squared_error=0.0)
    (alone,) = gains_of([{"test": Scores(still, still)}], seed=0)
    assert alone.score == "macro_f1", "a price that never moved has no error to compare"
