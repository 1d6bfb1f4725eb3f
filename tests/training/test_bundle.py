"""A bundle is plain data, whole or absent, and verified when read."""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from b3dist.config import Config
from b3dist.data.schema import SCHEMA_VERSION
from b3dist.data.windows import Scaler
from b3dist.errors import RunError, StorageError
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.training.bundle import FILES, read_bundle, write_bundle

SCALER = Scaler(mean=np.array([1.0, 2.0]), scale=np.array([0.5, 3.0]))


def write(folder: Path, **changes: Any) -> LstmMtl:
    config = Config()
    model = LstmMtl(2, config.model, generator=torch.Generator().manual_seed(0))
    facts = {
        "schema_version": SCHEMA_VERSION,
        "ticker": folder.name,
        "config": config.to_dict(),
        "feature_names": ["a", "b"],
        "scaler": {"mean": [1.0, 2.0], "scale": [0.5, 3.0]},
        "return_target": {"unit": "fraction", "mean": 0.0, "scale": 1.0},
    }
    parts: dict[str, Any] = {
        "facts": facts,
        "model": model,
        "scaler": SCALER,
        "history": pa.table({"epoch": [1], "val_loss": [0.5]}),
        "predictions": pa.table({"close": [1.0]}),
        "metrics": {"val": {"accuracy": 1.0}},
    }
    write_bundle(folder, **{**parts, **changes})
    return model


def test_round_trip(tmp_path: Path) -> None:
    """What is read equals what was written, with exactly the contract's files."""
    model = write(tmp_path / "AAAA3")
    bundle = read_bundle(tmp_path / "AAAA3")
    for name, tensor in model.state_dict().items():
        assert torch.equal(bundle.model.state_dict()[name], tensor)
    np.testing.assert_array_equal(bundle.scaler.scale, SCALER.scale)
    assert bundle.config == Config()
    assert sorted(path.name for path in (tmp_path / "AAAA3").iterdir()) == sorted(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["AAAA3"]


def test_the_joblib_scaler_works_in_scikit_learn(tmp_path: Path) -> None:
    """Another tool that loads scaler.joblib gets the same z-scores."""
    write(tmp_path / "AAAA3")
    rows = np.random.default_rng(0).normal(size=(5, 2))
    loaded = joblib.load(tmp_path / "AAAA3" / "scaler.joblib")
    loaded_scores = loaded.transform(pd.DataFrame(rows, columns=["a", "b"]))
    np.testing.assert_allclose(loaded_scores, SCALER.transform(rows), atol=1e-6)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 1}', '"x"', b"\xff"])
def test_damaged_facts_are_a_sentence(tmp_path: Path, content: str | bytes) -> None:
    """Whatever bundle.json was cut down or edited to, the error names the bundle."""
    write(tmp_path / "AAAA3")
    (tmp_path / "AAAA3" / "bundle.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunError, match="AAAA3"):
        read_bundle(tmp_path / "AAAA3")


def test_damaged_setting_is_a_sentence(tmp_path: Path) -> None:
    """Also where the file is whole, but a value in it is none, or weights are of another size than it says."""
    write(tmp_path / "AAAA3")
    path = tmp_path / "AAAA3" / "bundle.json"
    facts = json.loads(path.read_text())
    lacking = {name: value for name, value in facts.items() if name != "scaler"}
    for damaged in (lacking, {**facts, "scaler": 3}, {**facts, "feature_names": ["a"]}, {**facts, "config": {"x": 1}}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(RunError, match=r"bundle\.json is damaged"):
            read_bundle(tmp_path / "AAAA3")


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    """If one file cannot be made, neither the folder nor a temporary one stays."""
    with pytest.raises(ValueError, match="Out of range float"):
        write(tmp_path / "AAAA3", metrics={"val": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_never_overwritten(tmp_path: Path) -> None:
    """A second write is refused and the first stays to the byte."""
    write(tmp_path / "AAAA3")
    before = {path.name: path.read_bytes() for path in (tmp_path / "AAAA3").iterdir()}
    with pytest.raises(StorageError, match="already holds a bundle"):
        write(tmp_path / "AAAA3")
    assert {path.name: path.read_bytes() for path in (tmp_path / "AAAA3").iterdir()} == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_parent_is_a_clear_error(tmp_path: Path) -> None:
    """The message names the folder and the reason."""
    with pytest.raises(StorageError, match=r"cannot write .*AAAA3: No such file"):
        write(tmp_path / "absent" / "AAAA3")


def test_damage_is_noticed(tmp_path: Path) -> None:
    """Changed weights, a missing file, another version or broken JSON each give one sentence."""
    folder = tmp_path / "AAAA3"
    write(folder)
    facts = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**facts, "schema_version": 99}))
    with pytest.raises(RunError, match="schema version 99, expected 1"):
        read_bundle(folder)
    (folder / "bundle.json").write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        read_bundle(folder)
    (folder / "bundle.json").write_text(json.dumps(facts))
    weights = bytearray((folder / "model.pt").read_bytes())
    weights[-1] ^= 1
    (folder / "model.pt").write_bytes(weights)
    with pytest.raises(RunError, match="the file changed"):
        read_bundle(folder)
    (folder / "model.pt").unlink()
    with pytest.raises(RunError, match=r"model\.pt is missing"):
        read_bundle(folder)
