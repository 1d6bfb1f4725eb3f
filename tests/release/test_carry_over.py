"""What a release takes from the champion where its run has no model, and that it needs nothing of the run."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from b3dist.data.lake import Lake
from b3dist.distributed.run_list import prune_runs
from b3dist.release import ReleaseStore, create_release, promote, rollback
from b3dist.run_folder import RunFolder
from tests.release.releases import seeded, train_run


def test_missing_assets_are_carried_over(small_lake: Path, release: Any, run: RunFolder, tmp_path: Path) -> None:
    """Bit for bit, with the age in exchange sessions, through two releases, and without the runs of before."""
    store = ReleaseStore(tmp_path / "releases")
    old = train_run(small_lake, tmp_path / "runs", config=seeded(3, "data.to_session=2018-12-03"))
    first = create_release(store, old)
    promote(store, first.release_id)
    shutil.rmtree(old.path)
    kept = {ticker: first.state(asset.served) for ticker, asset in first.assets.items()}
    for number, present in enumerate((["SIMA3", "SIMB11", "SIME3"], ["SIMA3"])):
        wide = seeded(4, "model.hidden_size=12")
        again = train_run(small_lake, tmp_path / "runs", config=wide, tickers=present, failed=["SIMA4"])
        second = create_release(store, again)
        assert len(second.assets) == 6
        promote(store, second.release_id, force=True)
        calendar = Lake(small_lake).calendar()
        newest = np.datetime64(second.manifest["newest_session"])
        for ticker in ("SIMA4", "SIMD5"):
            asset = second.assets[ticker]
            assert asset.carried_over
            assert asset.run_id == old.run_id
            assert asset.facts["carried_from"] == first.release_id
            seen = np.datetime64(first.manifest["newest_session"])
            assert asset.facts["age_sessions"] == ((calendar > seen) & (calendar <= newest)).sum() > 0
            assert all(np.array_equal(second.state(asset.served)[name], kept[ticker][name]) for name in kept[ticker])
            assert asset.served.model_sha256 == first.assets[ticker].served.model_sha256
            assert second.predictions(ticker).equals(first.predictions(ticker))
            assert second.groups[asset.served.group].model.hidden_size == 8
        assert not second.assets["SIMA3"].carried_over
        assert second.groups[second.assets["SIMA3"].served.group].model.hidden_size == 12
        assert second.assets["SIMB11"].carried_over == (number == 1)
    alone = create_release(store, again, carry_over=False)
    assert list(alone.assets) == ["SIMA3"]
    assert alone.manifest["not_covered"] == [{"ticker": "SIMA4", "state": "failed", "reason": "it diverged"}]


def test_a_release_outlives_its_run(small_lake: Path, tmp_path: Path) -> None:
    """Once its run is pruned, a release opens, is compared, is carried over from and is rolled back to."""
    store = ReleaseStore(tmp_path / "releases")
    runs = tmp_path / "runs"
    first = create_release(store, train_run(small_lake, runs, tickers=["SIMA3", "SIMB11"]))
    second = create_release(store, train_run(small_lake, runs, tickers=["SIMA3", "SIMB11"], config=seeded(1)))
    assert len(prune_runs(runs, keep=0).deleted) == 2
    promote(store, first.release_id)
    assert promote(store, second.release_id, margin=1).comparison is not None
    third = create_release(store, train_run(small_lake, runs, tickers=["SIME3"]))
    assert {ticker: asset.carried_over for ticker, asset in third.assets.items()} == {
        "SIMA3": True,
        "SIMB11": True,
        "SIME3": False,
    }
    assert rollback(store).release_id == first.release_id
    assert store.open("champion").state(first.assets["SIMA3"].served).keys() == first.groups[0].weights.keys()
