"""A release becomes champion only if it is no worse, judged on sessions that neither release was fitted on."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from b3dist.errors import ConfigError, ReleaseError
from b3dist.release import ReleaseStore, create_release, promote
from b3dist.release.build import collect_run, write_release
from b3dist.release.gate import compare_releases
from b3dist.release.ladder import naive_parts
from b3dist.run_folder import RunFolder
from tests.release.releases import seeded, train_run


def test_a_worse_release_is_refused(store: ReleaseStore, ids: dict[str, str]) -> None:
    """With the paired numbers in the sentence, the alias as before; force promotes and says what it overrode."""
    promote(store, ids["first"])
    before = (store.path / "aliases.json").read_bytes()
    with pytest.raises(ReleaseError, match=r"return_error .* against the champion's .* by more than 0\.02") as caught:
        promote(store, ids["bad"])
    assert "--force" in caught.value.hint
    assert (store.path / "aliases.json").read_bytes() == before
    assert promote(store, ids["bad"], alias="challenger").overridden == ()
    moved = promote(store, ids["bad"], force=True)
    assert store.resolve("champion") == ids["bad"]
    assert moved.overridden
    assert moved.overridden[0].startswith("return_error")
    assert moved.comparison is not None
    assert promote(store, ids["first"]).overridden == ()  # better than the bad one


def test_the_margin_is_the_users(store: ReleaseStore, ids: dict[str, str]) -> None:
    """A wide margin lets the worse release through; a negative one, or none at all, is refused."""
    promote(store, ids["first"])
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ConfigError, match="the margin must be at least 0"):
            promote(store, ids["bad"], margin=wrong)
    assert promote(store, ids["bad"], margin=100).comparison is not None
    assert store.resolve("champion") == ids["bad"]


def test_fewer_assets_are_refused(store: ReleaseStore, ids: dict[str, str]) -> None:
    """The sentence counts both and names what would be lost."""
    promote(store, ids["first"])
    with pytest.raises(ReleaseError, match=r"covers 2 assets, the champion 6 \(missing: SIMA4, "):
        promote(store, ids["few"])


def test_only_coverage_is_lost_where_the_models_are_the_same(release: Any, run: RunFolder, tmp_path: Path) -> None:
    """Of a release that lacks one asset and shares the other models nothing is said but what is missing."""
    store = ReleaseStore(tmp_path / "releases")
    parts = collect_run(run)
    plain = {"refit": False, "refit_lake_manifest_hash": None, "refit_failed": {}}
    candidate = store.open(write_release(store, run, parts[1:], plain))
    (objection,) = compare_releases(release, candidate).objections
    assert objection == f"it covers 5 assets, the champion 6 (missing: {parts[0].ticker})"


def test_nothing_in_common_is_no_verdict(run: RunFolder, tmp_path: Path) -> None:
    """As many assets, but others than the champion's: there is nothing to compare, and it is refused."""
    store = ReleaseStore(tmp_path / "releases")
    parts = collect_run(run)
    plain = {"refit": False, "refit_lake_manifest_hash": None, "refit_failed": {}}
    old, new = (store.open(write_release(store, run, some, plain)) for some in (parts[:2], parts[1:3]))
    (objection,) = compare_releases(old, new).objections
    assert objection == "the two have no test session, horizon and label set in common to be compared on"


def test_the_naive_forecast_covers_nothing(small_lake: Path, store: ReleaseStore, ids: dict[str, str]) -> None:
    """A release that has no model of four assets covers fewer, even if it answers for them with no change."""
    promote(store, ids["first"])
    run = train_run(small_lake, store.path.parent / "runs", tickers=["SIMA3", "SIMB11"])
    parts = collect_run(run)
    lost = sorted(store.open("champion").assets.keys() - {"SIMA3", "SIMB11"})
    naive = naive_parts(lost, like=parts, run_id=run.run_id, newest=date(2018, 12, 28))
    plain = {"refit": False, "refit_lake_manifest_hash": None, "refit_failed": {}}
    release_id = write_release(store, run, [*parts, *naive], plain)
    assert len(store.open(release_id).assets) == 6
    with pytest.raises(ReleaseError, match="covers 2 assets, the champion 6"):
        promote(store, release_id)


def test_without_common_sessions_there_is_no_verdict(store: ReleaseStore, ids: dict[str, str]) -> None:
    """A release whose test part ended before the champion's began cannot be shown to be no worse."""
    promote(store, ids["first"])
    with pytest.raises(ReleaseError, match="no test session, horizon and label set in common"):
        promote(store, ids["early"])
    assert promote(store, ids["early"], force=True).release_id == ids["early"]


def oracle(runs: Mapping[str, Path], tickers: list[str]) -> dict[str, Any]:
    """The gate's scores by scikit-learn and pandas, from the bundles of two runs."""
    both = []
    for name, assets in runs.items():
        tables = []
        for ticker in tickers:
            table = pd.read_parquet(assets / ticker / "predictions.parquet").assign(ticker=ticker)
            tables.append(table[table["split"] == "test"])
        both.append(pd.concat(tables).set_index(["ticker", "session"]).add_prefix(f"{name}_"))
    rows = both[0].join(both[1], how="inner")
    truth = rows["new_y_return"]
    naive = (truth**2).groupby("ticker").mean() ** 0.5
    scores: dict[str, Any] = {"windows": len(rows)}
    for name in ("old", "new"):
        rmse = ((rows[f"{name}_return_pred"] - truth) ** 2).groupby("ticker").mean() ** 0.5
        scores[f"{name}_error"] = (rmse / naive).mean()
        scores[f"{name}_f1"] = f1_score(rows["new_y_action"], rows[f"{name}_action"], average="macro", zero_division=0)
    return scores


def test_the_gate_judges_common_sessions_only(small_lake: Path, tmp_path: Path) -> None:
    """Of two runs over different periods it takes the sessions in both test parts; the scores are an oracle's."""
    tickers = ["SIMA3", "SIMB11", "SIME3"]
    old = train_run(small_lake, tmp_path / "runs", config=seeded(0, "data.to_session=2018-11-05"), tickers=tickers)
    new = train_run(small_lake, tmp_path / "runs", config=seeded(1), tickers=tickers)
    store = ReleaseStore(tmp_path / "releases")
    champion, candidate = (create_release(store, one) for one in (old, new))
    expected = oracle({"old": old.assets, "new": new.assets}, tickers)
    comparison = compare_releases(champion, candidate)
    error, f1 = comparison.scores
    assert 0 < expected["windows"] < champion.predictions().num_rows / 2
    assert (error.windows, f1.windows) == (expected["windows"], expected["windows"])
    for score, name in ((error, "error"), (f1, "f1")):
        np.testing.assert_allclose(
            [score.champion, score.candidate], [expected[f"old_{name}"], expected[f"new_{name}"]], rtol=1e-12
        )
    assert error.worse_by == pytest.approx(error.candidate - error.champion)
    assert f1.worse_by == pytest.approx(f1.champion - f1.candidate)


def test_a_single_asset_can_be_compared(small_lake: Path, release: Any, tmp_path: Path) -> None:
    """Without others there is no error of the mean, and both scores are there."""
    run = train_run(small_lake, tmp_path / "runs", config=seeded(1), tickers=["SIMA3"])
    scores = compare_releases(release, create_release(ReleaseStore(tmp_path / "releases"), run)).scores
    assert [(score.name, score.assets, score.standard_error) for score in scores] == [
        ("return_error", 1, None),
        ("macro_f1", 1, None),
    ]


def test_other_questions_are_not_compared(small_lake: Path, release: Any, tmp_path: Path) -> None:
    """With another label set only the returns are compared; with another horizon nothing is."""
    for override, compared in (("data.label_set=forward_return", ["return_error"]), ("data.horizon=3", [])):
        run = train_run(small_lake, tmp_path / "runs", config=seeded(0, override), tickers=["SIMA3", "SIMB11"])
        other = create_release(ReleaseStore(tmp_path / "releases"), run)
        comparison = compare_releases(release, other)
        assert [score.name for score in comparison.scores] == compared
