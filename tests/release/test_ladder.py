"""Every asset of a release has a model: its own, else the pooled one, else the naive forecast."""

import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from b3dist.data.lake import Lake
from b3dist.distributed.fleet.initial import InitialSource, open_source, warm_config
from b3dist.errors import ReleaseError
from b3dist.recipes import pooled
from b3dist.release import Refitting, Release, ReleaseStore, create_release
from b3dist.release.promotion import promote
from b3dist.run_folder import RunFolder
from b3dist.scoring import Scorer
from b3dist.training.bundle import read_bundle
from tests.release.releases import seeded, train_run
from tests.training.pooled_runs import QUICK, train_pooled_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ladder") / "runs"


@pytest.fixture(scope="module")
def tickers(small_lake: Path) -> list[str]:
    """The lake's assets, shortest history first."""
    return list(Lake(small_lake).tickers().sort_values("num_sessions")["ticker"])


@pytest.fixture(scope="module")
def pooled_run(small_lake: Path, runs: Path, tickers: list[str]) -> RunFolder:
    """All assets but the shortest, which is too short for it."""
    sessions = Lake(small_lake).tickers().set_index("ticker")["num_sessions"]
    config = pooled().with_overrides([*QUICK, f"data.min_sessions={int(sessions[tickers[0]]) + 1}"])
    return train_pooled_run(small_lake, runs, config=config)


@pytest.fixture(scope="module")
def release(small_lake: Path, runs: Path, tickers: list[str], pooled_run: RunFolder) -> Release:
    """Two assets of their own, the others below."""
    own = train_run(small_lake, runs, tickers=tickers[-2:])
    return create_release(ReleaseStore(runs.parent / "releases"), own, fallback=pooled_run)


def test_each_asset_says_how_far_down_it_is(release: Release, tickers: list[str], pooled_run: RunFolder) -> None:
    """In the manifest, per asset and in sum."""
    sources = {ticker: asset.source for ticker, asset in release.assets.items()}
    assert sources == {
        tickers[0]: "naive",
        **dict.fromkeys(tickers[1:-2], "pooled"),
        **dict.fromkeys(tickers[-2:], "own"),
    }
    assert release.manifest["ladder"] == {"own": 2, "pooled": 3, "naive": 1}
    assert release.manifest["not_covered"] == []
    assert {release.assets[ticker].run_id for ticker in tickers[1:-2]} == {pooled_run.run_id}
    assert "| models | 2 assets have one of their own, 3 the pooled one, 1 none" in release.card
    judged = [
        one for asset in release.assets.values() if (one := asset.metrics["test"]["skill"])["p_value"] is not None
    ]
    assert len(judged) == 5
    passed = sum(one["beats_persistence"] for one in judged)
    assert f"\n{passed} of 5 on test (those with windows enough to tell)" in release.card, "the naive one is not judged"


def test_each_prediction_says_how_far_down_its_model_is(release: Release, small_lake: Path, tickers: list[str]) -> None:
    """And the naive one predicts no change and the most frequent action of the training windows."""
    scorer = Scorer(release, Lake(small_lake))
    scores, skipped = scorer.score_all()
    assert not skipped
    rows = {row["ticker"]: row for row in scores.to_pylist()}
    assert {ticker: row["source"] for ticker, row in rows.items()} == {
        ticker: asset.source for ticker, asset in release.assets.items()
    }
    naive = rows[tickers[0]]
    assert naive["return_pred"] == 0.0
    assert naive["price_pred"] == naive["price"]
    assert naive["action"] == "hold"
    counts = np.array([0, 0, 0])
    for ticker in tickers[-2:]:
        counts += list(release.assets[ticker].facts["splits"]["train"]["actions"].values())
    expected = (counts + 1) / (counts.sum() + 3)
    np.testing.assert_allclose([naive["p_buy"], naive["p_sell"], naive["p_hold"]], expected, rtol=1e-5)


def test_released_pooled_model_predicts_what_its_run_predicted(
    release: Release, small_lake: Path, tickers: list[str]
) -> None:
    """Scoring the newest test session gives the stored prediction, scaled by the asset's own history."""
    scorer = Scorer(release, Lake(small_lake), which="evaluated")
    stored = release.predictions(tickers[1]).to_pandas().iloc[-1]
    row = scorer.score([scorer.locate(tickers[1], stored["session"])]).to_pylist()[0]
    assert row["return_pred"] == pytest.approx(stored["return_pred"], abs=1e-7)
    assert row["p_hold"] == pytest.approx(stored["p_hold"], abs=1e-6)


def test_kept_pooled_start_is_pooled_and_is_not_refitted(
    small_lake: Path, runs: Path, tickers: list[str], pooled_run: RunFolder
) -> None:
    """No epoch improved on it: manifest, card and rows say so, and its rows are in sample up to the pooled cut only."""
    source = InitialSource(kind="run", path=pooled_run.path)
    steps = {tickers[-1]: ["training.learning_rate=3", "training.epochs=2"], tickers[-2]: ["training.epochs=2"]}
    warm = {
        ticker: train_run(
            small_lake, runs, tickers=[ticker], config=warm_config(source).with_overrides(chosen), start=source
        )
        for ticker, chosen in steps.items()
    }
    kept, trained = warm[tickers[-1]], warm[tickers[-2]]
    alone = create_release(
        ReleaseStore(runs.parent / "alone"), kept, refit=Refitting(workers=1, initial_models=open_source(source))
    )
    assert (alone.manifest["refit"], alone.manifest["refit_failed"]) == (False, {})
    assert "the evaluated ones: they have not seen the newest part" in alone.card
    shutil.copytree(trained.assets / tickers[-2], kept.assets / tickers[-2])
    refit = Refitting(workers=1, initial_models=open_source(source))
    release = create_release(ReleaseStore(runs.parent / "kept"), kept, refit=refit, fallback=pooled_run)
    one, other = release.assets[tickers[-1]], release.assets[tickers[-2]]
    assert one.metrics["best_epoch"] == 0
    assert (one.source, one.served is one.evaluated, one.facts["refit"]) == ("pooled", True, None)
    assert other.metrics["best_epoch"] > 0
    assert (other.source, other.served is other.evaluated) == ("own", False)
    assert release.manifest["ladder"] == {"own": 1, "pooled": 4, "naive": 1}
    assert release.manifest["refit_failed"] == {}
    assert "1 assets refitted" in release.card
    assert "1 assets keep the weights they began from" in release.card
    scorer, cut = Scorer(release, Lake(small_lake)), read_bundle(pooled_run.path / "pooled").config.data.validation_from
    assert cut is not None
    for ticker in tickers[1:]:
        rows = scorer.history(ticker, date(1990, 1, 1), date(2100, 1, 1))
        days = rows["session"].to_pylist()
        assert rows["in_sample"].to_pylist() == [ticker == tickers[-2] or day < cut for day in days]
        assert set(rows["source"].to_pylist()) == {"own" if ticker == tickers[-2] else "pooled"}


def test_own_model_of_the_champion_goes_before_the_pooled_one(
    release: Release, small_lake: Path, runs: Path, tickers: list[str], pooled_run: RunFolder
) -> None:
    """A night without an asset keeps its own older model; pooled and naive ones are replaced by what is new."""
    store = ReleaseStore(runs.parent / "releases")
    promote(store, release.release_id, force=True)
    night = train_run(small_lake, runs, tickers=tickers[-1:])
    other = train_pooled_run(small_lake, runs, tickers=tickers[1:])
    after = create_release(store, night, fallback=other)
    kept = after.assets[tickers[-2]]
    assert (kept.source, kept.carried_over) == ("own", True)
    assert {after.assets[ticker].run_id for ticker in tickers[1:-2]} == {other.run_id}
    assert not after.assets[tickers[1]].carried_over


def test_only_a_pooled_run_is_fallen_back_on(small_lake: Path, runs: Path, tickers: list[str]) -> None:
    """A run of assets trained one by one covers no other."""
    own = train_run(small_lake, runs, tickers=tickers[-1:])
    store = ReleaseStore(runs.parent / "others")
    with pytest.raises(ReleaseError, match="only a pooled run"):
        create_release(store, own, fallback=own)


@pytest.fixture
def copied(pooled_run: RunFolder, tmp_path: Path) -> RunFolder:
    """The pooled run in a folder of its own, to damage."""
    shutil.copytree(pooled_run.path, tmp_path / "runs" / pooled_run.run_id)
    return RunFolder.open(tmp_path / "runs", pooled_run.run_id)


@pytest.fixture(scope="module")
def own_run(small_lake: Path, runs: Path, tickers: list[str]) -> RunFolder:
    """A run of one asset."""
    return train_run(small_lake, runs, tickers=tickers[-1:])


def test_run_without_a_whole_model_is_not_fallen_back_on(own_run: RunFolder, copied: RunFolder, tmp_path: Path) -> None:
    """Neither one that is still driven, nor one whose assets' models are lost, nor one that never ended."""
    store = ReleaseStore(tmp_path / "releases")
    with copied.driven(), pytest.raises(ReleaseError, match="is still going on"):
        create_release(store, own_run, fallback=copied)
    lost = min(copied.assets.iterdir())
    shutil.rmtree(lost)
    with pytest.raises(ReleaseError, match=rf"lost the models of 1 assets, e\.g\. {lost.name}"):
        create_release(store, own_run, fallback=copied)
    shutil.rmtree(copied.assets)
    copied.assets.mkdir()
    with pytest.raises(ReleaseError, match="lost the models of 5 assets"):
        create_release(store, own_run, fallback=copied)
    (copied.path / "pooled" / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(ReleaseError, match="cannot be read"):
        create_release(store, own_run, fallback=copied)
    shutil.rmtree(copied.path / "pooled")
    with pytest.raises(ReleaseError, match="has not finished") as caught:
        create_release(store, own_run, fallback=copied)
    assert f"pooled --resume {copied.run_id}" in caught.value.hint
    assert not store.list()


@pytest.mark.parametrize("setting", ["data.label_set=forward_return", "data.horizon=3"])
def test_model_of_another_question_is_not_fallen_back_on(
    small_lake: Path, pooled_run: RunFolder, tickers: list[str], tmp_path: Path, setting: str
) -> None:
    """One column `action` must not mean two things."""
    own = train_run(small_lake, tmp_path / "runs", tickers=tickers[-1:], config=seeded(0, setting))
    name, _, value = setting.partition("=")
    with pytest.raises(ReleaseError, match=f"with {name} .*, the assets of the release with {value}"):
        create_release(ReleaseStore(tmp_path / "releases"), own, fallback=pooled_run)


def test_pooled_run_is_released_but_not_refitted(small_lake: Path, runs: Path, pooled_run: RunFolder) -> None:
    """A pooled run alone is a release of pooled models; a refit would train each asset from scratch."""
    store = ReleaseStore(runs.parent / "pooled-only")
    alone = create_release(store, pooled_run)
    assert alone.manifest["ladder"] == {"own": 0, "pooled": 5, "naive": 0}
    assert {asset.source for asset in alone.assets.values()} == {"pooled"}
    assert len({asset.served.model_sha256 for asset in alone.assets.values()}) == 1
    assert len({asset.served.scaler.mean.tobytes() for asset in alone.assets.values()}) == 5
    assert "One LSTM multi-task model for all assets of B3 together" in alone.card
    with pytest.raises(ReleaseError, match="is of a pooled model"):
        create_release(store, pooled_run, refit=Refitting(workers=1))
