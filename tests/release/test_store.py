"""A release is every asset's best weights, bit for bit, in one folder that never changes."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from b3dist.errors import ReleaseError
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.model.stacked import stacked_forward
from b3dist.release import Release, ReleaseStore, create_release
from b3dist.run_folder import RunFolder
from b3dist.training.bundle import read_bundle, serialise_weights
from tests.release.releases import train_run


def copied(release: Release, folder: Path) -> ReleaseStore:
    """A folder of releases with a copy of one, for tests that damage it."""
    shutil.copytree(release.path, folder / release.release_id)
    return ReleaseStore(folder)


def test_every_model_comes_back_bit_for_bit(run: RunFolder, release: Release) -> None:
    """A slot's plain state_dict equals the bundle's, and serialises to the bytes the bundle was hashed from."""
    assert list(release.assets) == sorted(folder.name for folder in run.assets.iterdir())
    for ticker, asset in release.assets.items():
        bundle = read_bundle(run.assets / ticker)
        state = release.state(asset.served)
        assert state.keys() == bundle.model.state_dict().keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in bundle.model.state_dict().items())
        assert hashlib.sha256(serialise_weights(state)).hexdigest() == asset.served.model_sha256
        assert asset.served.model_sha256 == bundle.facts["model_sha256"]
        assert asset.served is asset.evaluated
        assert (asset.run_id, asset.source, asset.carried_over) == (run.run_id, "own", False)
        np.testing.assert_array_equal(asset.served.scaler.mean, bundle.scaler.mean)
        assert asset.served.return_target == bundle.return_target
        assert asset.served.anchor.isoformat() == bundle.facts["anchor"]


def test_a_group_computes_what_its_models_compute(release: Release) -> None:
    """The stacked weights, given to the stacked network, give each plain network's outputs."""
    (group,) = release.groups
    windows = torch.randn(
        len(release.assets),
        3,
        group.data.lookback,
        len(group.feature_names),
        generator=torch.Generator().manual_seed(0),
    )
    logits, returns = stacked_forward(group.weights, windows)
    for asset in release.assets.values():
        model = LstmMtl(len(group.feature_names), group.model)
        model.load_state_dict(release.state(asset.served))
        own_logits, own_returns = model.eval()(windows[asset.served.slot])
        torch.testing.assert_close(logits[asset.served.slot], own_logits, rtol=0, atol=1e-6)
        torch.testing.assert_close(returns[asset.served.slot], own_returns, rtol=0, atol=1e-6)


def test_the_manifest_says_what_was_released(run: RunFolder, release: Release) -> None:
    """Ticker, run, hash, features, labels, scaler, metrics and lake of every asset; why an asset is missing."""
    manifest = json.loads((release.path / "manifest.json").read_text())
    assert manifest["run_id"] == run.run_id
    assert manifest["lake_manifest_hash"] == run.settings.lake_manifest_hash
    assert manifest["files"]["weights.pt"] == hashlib.sha256((release.path / "weights.pt").read_bytes()).hexdigest()
    assert manifest["not_covered"] == [{"ticker": "LOST3", "state": "failed", "reason": "it diverged"}]
    for ticker, entry in manifest["assets"].items():
        facts = json.loads((run.assets / ticker / "bundle.json").read_text())
        assert entry["metrics"] == json.loads((run.assets / ticker / "metrics.json").read_text())
        for name in ("config", "splits", "label_set", "versions", "lake_manifest_hash", "seed"):
            assert entry[name] == facts[name]
        assert entry["features"] == facts["feature_names"]
        for name in ("model_sha256", "scaler", "return_target", "anchor"):
            assert entry["served"][name] == entry["evaluated"][name] == facts[name]


def test_predictions_are_kept(run: RunFolder, release: Release) -> None:
    """The release holds each bundle's predictions, so that a pruned run is not missed."""
    for ticker in release.assets:
        kept = release.predictions(ticker).drop_columns("ticker")
        assert kept.equals(pq.read_table(run.assets / ticker / "predictions.parquet"))


def test_a_flipped_byte_is_refused(release: Release, tmp_path: Path) -> None:
    """In any file and at any place; the sentence names the file."""
    store = copied(release, tmp_path)
    for file in sorted((tmp_path / release.release_id).iterdir()):
        whole = file.read_bytes()
        file.chmod(0o644)
        for place in (0, len(whole) // 3, len(whole) // 2, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            file.write_bytes(damaged)
            with pytest.raises(ReleaseError, match=file.name):
                store.open(release.release_id)
        file.unlink()
        with pytest.raises(ReleaseError, match=f"no complete release: {file.name}"):
            store.open(release.release_id)
        file.write_bytes(whole)
    assert store.open(release.release_id).manifest_sha256 == release.manifest_sha256


def test_a_renamed_folder_is_refused(release: Release, tmp_path: Path) -> None:
    """A release answers under its own id only."""
    store = copied(release, tmp_path)
    (tmp_path / release.release_id).rename(tmp_path / "20200101-000000-abcd")
    with pytest.raises(ReleaseError, match="the folder was renamed"):
        store.open("20200101-000000-abcd")


def test_another_schema_version_is_refused(release: Release, tmp_path: Path) -> None:
    """A manifest of a later b3dist is said to be one, not read half."""
    store = copied(release, tmp_path)
    path = tmp_path / release.release_id / "manifest.json"
    text = path.read_text().replace('"schema_version": 1', '"schema_version": 2', 1).encode()
    for file in (path, path.with_name("manifest.sha256")):
        file.chmod(0o644)
    path.write_bytes(text)
    path.with_name("manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")
    with pytest.raises(ReleaseError, match="schema version 2, expected 1"):
        store.open(release.release_id)


def test_files_are_read_only(release: Release) -> None:
    """Nobody may write them."""
    assert {path.stat().st_mode & 0o777 for path in release.path.iterdir()} == {0o444}


def test_unknown_names_are_helped(release: Release, tmp_path: Path) -> None:
    """The nearest id, or how to get a first release or alias."""
    store = ReleaseStore(release.path.parent)
    with pytest.raises(ReleaseError, match="there is no release") as caught:
        store.resolve(release.release_id[:-1])
    assert caught.value.hint == f"the nearest is {release.release_id}"
    with pytest.raises(ReleaseError, match=r"no release in .* is champion") as caught:
        store.resolve("champion")
    assert caught.value.hint == f"b3dist release promote {release.release_id}"
    with pytest.raises(ReleaseError, match=r"no release in .* is champion") as caught:
        ReleaseStore(tmp_path / "absent").resolve("champion")
    assert "b3dist release create" in caught.value.hint
    assert ReleaseStore(tmp_path / "absent").list() == []


def test_a_running_or_empty_run_is_refused(run: RunFolder, small_lake: Path, tmp_path: Path) -> None:
    """A release is of what has been trained, and of nothing that still changes."""
    store = ReleaseStore(tmp_path / "releases")
    with run.driven(), pytest.raises(ReleaseError, match="still going on"):
        create_release(store, run)
    empty = train_run(small_lake, tmp_path / "runs", tickers=[], failed=["SIMA3"])
    with pytest.raises(ReleaseError, match="trained no asset"):
        create_release(store, empty)
    assert store.list() == []
    assert not (tmp_path / "releases").exists()


def test_a_damaged_bundle_is_not_released(small_lake: Path, tmp_path: Path) -> None:
    """Weights that do not match their hash stop the release; nothing is left."""
    run = train_run(small_lake, tmp_path / "runs", tickers=["SIMA3"])
    weights = bytearray((run.assets / "SIMA3" / "model.pt").read_bytes())
    weights[len(weights) // 2] ^= 1
    (run.assets / "SIMA3" / "model.pt").write_bytes(weights)
    with pytest.raises(Exception, match=r"model\.pt has sha256"):
        create_release(ReleaseStore(tmp_path / "releases"), run)
    assert not (tmp_path / "releases").exists()


def test_the_list_names_damage(release: Release, tmp_path: Path) -> None:
    """A release whose manifest was changed is listed with what is wrong, and does not hide the others."""
    store = copied(release, tmp_path)
    (info,) = store.list()
    assert (info.release_id, info.assets, info.problem) == (release.release_id, len(release.assets), "")
    path = tmp_path / release.release_id / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    (info,) = store.list()
    assert "does not match manifest.sha256" in info.problem
    assert dataclasses.asdict(info)["assets"] == 0


def test_other_folders_are_no_releases(release: Release, tmp_path: Path) -> None:
    """In a folder that holds something else too only releases are listed, also one that lost its manifest."""
    store = copied(release, tmp_path)
    (tmp_path / "bars").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "manifest.json").write_text("{}")
    (tmp_path / "20200101-000000-abcd").mkdir()
    assert store.ids() == sorted([release.release_id, "20200101-000000-abcd"], reverse=True)
    assert [info.problem != "" for info in store.list()] == [False, True]
    with pytest.raises(ReleaseError, match="there is no release 'bars'"):
        store.open("bars")
