"""A refitted release serves models trained on all rows and keeps the evaluated ones beside them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.distributed.fleet.initial import InitialSource, open_source
from b3dist.errors import LakeError, ReleaseError
from b3dist.release import Refitting, Release, ReleaseStore, create_release, promote
from b3dist.run_folder import RunFolder
from tests.release.releases import seeded, train_run


@pytest.fixture(scope="module")
def refitted(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The refitted release of `run`, trained in this process."""
    return create_release(ReleaseStore(tmp_path_factory.mktemp("refit") / "releases"), run, refit=Refitting(workers=1))


def states_equal(left: Release, right: Release, which: str) -> bool:
    """Whether all models of two releases have the same bits."""
    for ticker in left.assets:
        one, other = (release.state(getattr(release.assets[ticker], which)) for release in (left, right))
        if not all(torch.equal(one[name], other[name]) for name in one):
            return False
    return True


def test_both_variants_are_kept(refitted: Release, release: Release, small_lake: Path) -> None:
    """The evaluated weights are the plain release's; the served ones differ, with the last row as anchor."""
    assert states_equal(refitted, release, "evaluated")
    last = {row.ticker: row.last_session.date() for row in Lake(small_lake).tickers().itertuples()}
    for ticker, asset in refitted.assets.items():
        plain = release.assets[ticker]
        assert asset.evaluated.model_sha256 == plain.evaluated.model_sha256
        assert asset.served.model_sha256 != asset.evaluated.model_sha256
        assert asset.evaluated.anchor == plain.evaluated.anchor < asset.served.anchor == last[ticker]
        assert asset.metrics == plain.metrics
        assert asset.facts["refit"]["epochs"] == asset.metrics["best_epoch"] == len(asset.facts["learning_rates"])
        parts = asset.facts["splits"].values()
        windows = sum(part["num_windows"] for part in parts) + asset.facts["dropped_windows"]["purge"]
        assert asset.facts["refit"]["num_train_windows"] == windows
        assert not np.array_equal(asset.served.scaler.mean, asset.evaluated.scaler.mean)
        assert asset.served.return_target != asset.evaluated.return_target
    assert refitted.predictions().equals(release.predictions())
    assert refitted.manifest["refit_lake_manifest_hash"] == Lake(small_lake).manifest_hash
    served = {asset.served.group for asset in refitted.assets.values()}
    assert served.isdisjoint({asset.evaluated.group for asset in refitted.assets.values()})


@pytest.mark.slow
def test_the_number_of_processes_changes_no_bit(refitted: Release, run: RunFolder, tmp_path: Path) -> None:
    """Two processes give the weights of one; each asset is counted."""
    seen: list[tuple[int, int]] = []
    refit = Refitting(workers=2, on_progress=lambda done, total: seen.append((done, total)))
    again = create_release(ReleaseStore(tmp_path / "releases"), run, refit=refit)
    assert states_equal(again, refitted, "served")
    assert seen == [(done, 6) for done in range(7)]


def test_a_lake_with_newer_sessions_is_what_a_refit_wants(small_lake: Path, tmp_path: Path) -> None:
    """Refitted on a lake that has grown since, the anchor is the new last session; both lakes are in the manifest."""
    files = sorted((small_lake.parent / "files").glob("COTAHIST*"))
    assert len(files) > 1
    ingest(files[:-1], tmp_path / "lake")
    config = seeded(0, "data.min_sessions=140")
    run = train_run(tmp_path / "lake", tmp_path / "runs", tickers=["SIMA3"], config=config)
    before = Lake(tmp_path / "lake").manifest_hash
    ingest(files[-1:], tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    release = create_release(ReleaseStore(tmp_path / "releases"), run, refit=Refitting())
    asset = release.assets["SIMA3"]
    assert asset.facts["lake_manifest_hash"] == release.manifest["lake_manifest_hash"] == before
    assert asset.facts["refit"]["lake_manifest_hash"] == lake.manifest_hash != before
    assert asset.served.anchor == lake.calendar()[-1].astype(object)
    assert "refitted on a later state" in release.card


def test_an_asset_that_cannot_be_refitted_is_served_as_evaluated(
    small_lake: Path, run: RunFolder, tmp_path: Path
) -> None:
    """Gone from the lake, it keeps its evaluated weights and the manifest says why; if all are gone, no release."""
    store = ReleaseStore(tmp_path / "releases")
    other = tmp_path / "lake"
    simulate(tmp_path / "files", assets=3, sessions=400, seed=7)
    ingest([tmp_path / "files"], other)
    common = set(Lake(other).tickers()["ticker"])
    release = create_release(store, run, refit=Refitting(lake=other, workers=1))
    for ticker, asset in release.assets.items():
        assert (asset.served is asset.evaluated) == (ticker not in common)
    assert set(release.manifest["refit_failed"]) == release.assets.keys() - common
    lost = train_run(small_lake, tmp_path / "runs", tickers=sorted(release.assets.keys() - common)[:1])
    with pytest.raises(ReleaseError, match=r"no asset could be refitted on .*has no bars of"):
        create_release(store, lost, refit=Refitting(lake=other))
    with pytest.raises(LakeError, match="there is no lake"):
        create_release(store, run, refit=Refitting(lake=tmp_path / "absent"))
    assert len(store.list()) == 1


def test_carried_over_refits_stay_refitted(small_lake: Path, run: RunFolder, tmp_path: Path) -> None:
    """An asset carried over from a refitted champion keeps both of its models, bit for bit."""
    store = ReleaseStore(tmp_path / "releases")
    champion = create_release(store, run, refit=Refitting(workers=1))
    promote(store, champion.release_id)
    second = create_release(store, train_run(small_lake, tmp_path / "runs", tickers=["SIMA3"]))
    for ticker in second.assets.keys() - {"SIMA3"}:
        asset, before = second.assets[ticker], champion.assets[ticker]
        for one, other in ((asset.served, before.served), (asset.evaluated, before.evaluated)):
            assert (one.model_sha256, one.anchor) == (other.model_sha256, other.anchor)
            assert all(torch.equal(second.state(one)[name], champion.state(other)[name]) for name in second.state(one))
    assert second.assets["SIMA3"].served is second.assets["SIMA3"].evaluated
    assert not second.manifest["refit"]


def test_a_refit_of_the_champion_is_no_worse(release: Release, refitted: Release, tmp_path: Path) -> None:
    """It has the champion's evaluated weights, so there is nothing to object to."""
    store = ReleaseStore(tmp_path)
    for one in (release, refitted):
        shutil.copytree(one.path, tmp_path / one.release_id)
    promote(store, release.release_id)
    comparison = promote(store, refitted.release_id).comparison
    assert comparison is not None
    assert (comparison.same_models, comparison.scores) == (6, ())


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_warm_started_asset_is_refitted_from_the_same_start(
    processes: int, small_lake: Path, release: Release, run: RunFolder, tmp_path: Path
) -> None:
    """Begun from a release, it begins there again; where that is gone it is served by its evaluated weights."""
    source = InitialSource(kind="release", path=release.path)
    begun = open_source(source)
    config = seeded(2, "data.to_session=2018-12-20")
    warm = train_run(small_lake, tmp_path / "runs", tickers=["SIMA3", "SIMB11"], config=config, start=source)
    store = ReleaseStore(tmp_path / "releases")
    one, two = (
        create_release(store, warm, refit=Refitting(workers=workers, initial_models=begun))
        for workers in (1, processes)
    )
    assert states_equal(one, two, "served")
    assert "2 assets were trained on from another model's weights" in one.card
    for asset in one.assets.values():
        assert asset.facts["initial_model"]["origin"].startswith(f"release {release.release_id}")
        assert asset.facts["refit"]["epochs"] == asset.metrics["best_epoch"]
    cold = train_run(small_lake, tmp_path / "runs", tickers=["SIMA3", "SIMB11"], config=config)
    assert not states_equal(one, create_release(store, cold, refit=Refitting(workers=1)), "served")
    other = open_source(InitialSource(kind="run", path=cold.path))
    for models in (None, other):
        with pytest.raises(ReleaseError, match=r"started from \(release .* is gone or has changed"):
            create_release(store, warm, refit=Refitting(workers=1, initial_models=models))
