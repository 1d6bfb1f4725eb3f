"""Where warm starts come from: pooled runs, fleets and releases, each asset's own model before any other."""

import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from b3dist.data.lake import Lake
from b3dist.distributed.fleet.drive import drive_fleet
from b3dist.distributed.fleet.initial import (
    INIT_FROM,
    WARM_EPOCHS,
    WARM_LEARNING_RATE,
    InitialSource,
    WarmTrainer,
    check_source,
    find_source,
    open_source,
    warm_config,
)
from b3dist.distributed.fleet.options import FleetOptions
from b3dist.distributed.fleet.worker import _conclude
from b3dist.distributed.selection import new_run
from b3dist.errors import ReleaseError, RunError, SourceGoneError
from b3dist.recipes import card, pooled
from b3dist.release import ReleaseStore, create_release
from b3dist.run_folder import RunFolder
from b3dist.training.asset import TrainedAsset
from b3dist.training.bundle import read_bundle
from tests.release.releases import train_run
from tests.training.pooled_runs import QUICK, train_pooled_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("initial") / "runs"


@pytest.fixture(scope="module")
def tickers(small_lake: Path) -> list[str]:
    """The lake's assets, shortest history first."""
    return list(Lake(small_lake).tickers().sort_values("num_sessions")["ticker"])


@pytest.fixture(scope="module")
def pooled_run(small_lake: Path, runs: Path, tickers: list[str]) -> RunFolder:
    """All assets but the one with the longest history."""
    return train_pooled_run(small_lake, runs, tickers=tickers[:-1])


def test_pooled_run_gives_each_asset_its_own_scales(pooled_run: RunFolder, runs: Path, tickers: list[str]) -> None:
    """One it does not know gets the model as a whole, with the scales of all assets and no price basis of its own."""
    models = open_source(find_source(pooled_run.run_id, runs=runs, releases=runs.parent / "releases"))
    bundle = read_bundle(pooled_run.assets / tickers[0])
    known, unknown = models(tickers[0]), models(tickers[-1])
    assert known is not None
    assert unknown is not None
    np.testing.assert_array_equal(known.scaler.mean, bundle.scaler.mean)
    assert known.anchor == date.fromisoformat(bundle.facts["anchor"])
    assert unknown.anchor is None
    assert not np.array_equal(unknown.scaler.mean, known.scaler.mean)
    for model in (known, unknown):
        assert model.model_sha256 == bundle.facts["model_sha256"]
        assert model.selectable_from == bundle.config.data.validation_from
        assert model.testable_from == bundle.config.data.test_from


def test_fleet_and_release_give_an_asset_its_own_model_or_none(
    small_lake: Path, runs: Path, tickers: list[str], pooled_run: RunFolder
) -> None:
    """The same weights from both; a naive forecast is no model to start from."""
    run = train_run(small_lake, runs, tickers=tickers[-2:-1])
    release = create_release(ReleaseStore(runs.parent / "releases"), run, fallback=pooled_run)
    of_run = open_source(find_source(run.run_id, runs=runs, releases=runs.parent / "releases"))(tickers[-2])
    assert of_run is not None
    models = open_source(find_source(release.release_id, runs=runs, releases=runs.parent / "releases"))
    of_release = models(tickers[-2])
    assert of_release is not None
    assert of_release.model_sha256 == of_run.model_sha256
    assert of_release.anchor == of_run.anchor
    assert (of_release.selectable_from, of_release.testable_from) == (of_run.selectable_from, of_run.testable_from)
    np.testing.assert_array_equal(of_release.scaler.scale, of_run.scaler.scale)
    assert models(tickers[0]) is not None, "the pooled model of the release"
    assert models("NONE3") is None
    naive = create_release(
        ReleaseStore(runs.parent / "others"),
        train_run(small_lake, runs, tickers=tickers[-2:-1], failed=[tickers[-1]]),
        fallback=pooled_run,
    )
    assert naive.assets[tickers[-1]].source == "naive"
    assert open_source(InitialSource(kind="release", path=naive.path))(tickers[-1]) is None


def test_configuration_of_a_warm_start_keeps_the_pooled_cut(pooled_run: RunFolder, runs: Path) -> None:
    """Also under a recipe of one's own; without one the source's question comes along, with few epochs."""
    source = InitialSource(kind="run", path=pooled_run.path)
    trained = read_bundle(pooled_run.path / "pooled").config
    config = warm_config(source)
    assert config.data == trained.data
    assert config.model == trained.model
    assert (config.training.epochs, config.training.learning_rate) == (WARM_EPOCHS, WARM_LEARNING_RATE)
    assert config.training.batch_size == card().training.batch_size
    other = warm_config(source, card())
    assert (other.data.validation_from, other.data.test_from) == (trained.data.validation_from, trained.data.test_from)
    assert other.data.feature_set == "v1"
    assert trained.data.test_from is not None


def test_worker_trains_from_the_pooled_model_under_its_cut(
    small_lake: Path, runs: Path, tickers: list[str], pooled_run: RunFolder, tmp_path: Path
) -> None:
    """No test session of the bundle is one that the pooled model has trained on or was selected by."""
    source = InitialSource(kind="run", path=pooled_run.path)
    config = warm_config(source).with_overrides(["training.epochs=1"])
    trained = WarmTrainer(source)(Lake(small_lake), tickers[-1], config, tmp_path)
    facts = json.loads((trained.path / "bundle.json").read_text())
    assert facts["initial_model"]["origin"] == f"run {pooled_run.run_id}, pooled"
    assert date.fromisoformat(facts["splits"]["test"]["first"]) >= config.data.test_from  # type: ignore[operator]
    assert facts["dropped_windows"]["seen_by_initial_model"] == 0
    assert trained.metrics["best_epoch"] in (0, 1)


def test_option_survives_in_the_run(small_lake: Path, runs: Path) -> None:
    """What a run was started from is in its config.json, so that resuming needs no word about it."""
    source = InitialSource(kind="release", path=Path("/somewhere/releases/R"))
    run = new_run(Lake(small_lake), runs, pooled().with_overrides(QUICK), options={INIT_FROM: source.to_option()})
    assert InitialSource.of_run(RunFolder.open(runs, run.run_id)) == source
    assert InitialSource.of_run(new_run(Lake(small_lake), runs, card())) is None


def test_unknown_source_is_refused(runs: Path) -> None:
    """Neither a run nor a release: both are said."""
    with pytest.raises(RunError, match=r"no run 'nonsense'.*no release 'nonsense'"):
        find_source("nonsense", runs=runs, releases=runs.parent / "releases")
    empty = InitialSource(kind="run", path=runs / "nothing-in-here")
    with pytest.raises(RunError, match="holds no trained model"):
        warm_config(empty)
    with pytest.raises(SourceGoneError, match="is gone"):
        check_source(empty)


def test_source_that_is_gone_stops_a_fleet_instead_of_training_from_scratch(
    small_lake: Path, runs: Path, tickers: list[str], tmp_path: Path
) -> None:
    """Before Ray when the run is resumed, and in a worker whose source was deleted meanwhile; both engines ask here."""
    source_run = train_run(small_lake, tmp_path / "runs", tickers=tickers[-1:])
    source = InitialSource(kind="run", path=source_run.path)
    models = open_source(source)
    assert models(tickers[0]) is None, "a fleet that is there has no model of this one"
    run = new_run(Lake(small_lake), runs, warm_config(source), options={INIT_FROM: source.to_option()})
    shutil.rmtree(source_run.path)
    with pytest.raises(SourceGoneError, match=f"run {source_run.run_id} that models are to start from is gone"):
        drive_fleet(run, FleetOptions(tracking=False), train_asset=WarmTrainer(source))
    assert json.loads((run.path / "summary.json").read_text())["state"] == "interrupted"

    def train() -> TrainedAsset:
        models(tickers[0])
        raise AssertionError("this asset would be trained from scratch")

    with pytest.raises(SourceGoneError, match="is gone"):
        _conclude(train, run.assets / tickers[0])


def test_release_that_is_gone_or_damaged_is_noticed_before_ray(
    small_lake: Path, tickers: list[str], tmp_path: Path
) -> None:
    """Weights that were cut short, then the whole folder."""
    release = create_release(
        ReleaseStore(tmp_path / "releases"), train_run(small_lake, tmp_path / "runs", tickers=tickers[-1:])
    )
    source = InitialSource(kind="release", path=release.path)
    weights = release.path / "weights.pt"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ReleaseError, match=r"weights\.pt"):
        check_source(source)
    shutil.rmtree(release.path)
    with pytest.raises(SourceGoneError, match="is gone"):
        check_source(source)


def test_source_that_is_being_trained_or_has_no_model_yet_is_refused(
    small_lake: Path, tickers: list[str], tmp_path: Path
) -> None:
    """Which models it would give depends on the moment; a pooled run without its model would mean from scratch."""
    fleet = train_run(small_lake, tmp_path / "runs", tickers=tickers[-1:])
    with fleet.driven(), pytest.raises(RunError, match="still being trained"):
        check_source(InitialSource(kind="run", path=fleet.path))
    begun = new_run(Lake(small_lake), tmp_path / "runs", pooled(), kind="pooled")
    with pytest.raises(RunError, match="has no model yet") as caught:
        check_source(InitialSource(kind="run", path=begun.path))
    assert caught.value.hint == begun.how_to_resume()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": {"data": {"new_setting": 1}}}'])
def test_damaged_bundle_of_the_source_is_named(tmp_path: Path, content: str) -> None:
    """The file, in one sentence."""
    path = tmp_path / "run" / "assets" / "PETR4" / "bundle.json"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"PETR4/bundle\.json is damaged"):
        warm_config(InitialSource(kind="run", path=tmp_path / "run"))
