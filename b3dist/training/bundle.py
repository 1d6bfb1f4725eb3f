"""One trained asset on disk: plain data, written aside, then renamed into place.

`model.pt` is a state_dict read with weights_only=True; every number a reader needs is in `bundle.json`;
`scaler.joblib` is for other tools and never read here, since unpickling runs code.
"""

import functools
import hashlib
import importlib.metadata
import io
import json
import platform
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.preprocessing import StandardScaler

from b3dist import __version__
from b3dist.config import Config
from b3dist.data.durable import flush_to_disk
from b3dist.data.schema import SCHEMA_VERSION
from b3dist.data.windows import Scaler
from b3dist.errors import ConfigError, RunError, StorageError, describe_damage
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.training.return_unit import ReturnTarget

FILES = ("model.pt", "scaler.joblib", "bundle.json", "history.csv", "predictions.parquet", "metrics.json")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A trained asset read back."""

    path: Path
    facts: dict[str, Any]
    """bundle.json."""
    config: Config
    model: LstmMtl
    """In evaluation mode, on the CPU."""
    scaler: Scaler
    return_target: ReturnTarget

    @property
    def trained_until(self) -> date:
        """The newest session that the weights were trained on, by whatever models they began from."""
        if (known := self.facts.get("trained_until") or self.facts["anchor"]) is not None:
            return date.fromisoformat(known)
        # A pooled model as a whole, written before bundles said it; its calendar cut is always filled in.
        assert self.config.data.validation_from is not None
        return self.config.data.validation_from - timedelta(days=1)


def write_bundle(
    folder: Path,
    *,
    facts: Mapping[str, Any],
    model: LstmMtl,
    scaler: Scaler,
    history: pa.Table,
    predictions: pa.Table,
    metrics: Mapping[str, Any],
) -> None:
    """Write all of an asset's files at once: `folder` appears complete or not at all.

    Args:
        folder: assets/TICKER; its parent must exist.
        facts: bundle.json without model_sha256, which is added here.
        model: weights to store.
        scaler: also written as scaler.joblib.
        history: one row per epoch.
        predictions: one row per validation and test window.
        metrics: metrics.json.

    Raises:
        StorageError: disk full, folder not writable, or the asset already has a bundle.
    """
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        aside.mkdir()
        serialised = serialise_weights(model.state_dict())
        (aside / "model.pt").write_bytes(serialised)
        digest = hashlib.sha256(serialised).hexdigest()
        joblib.dump(_as_sklearn(scaler, facts["feature_names"]), aside / "scaler.joblib")
        _write_json(aside / "bundle.json", {**facts, "model_sha256": digest})
        history.to_pandas().to_csv(aside / "history.csv", index=False)
        pq.write_table(predictions, aside / "predictions.parquet")
        _write_json(aside / "metrics.json", metrics)
        for name in FILES:
            flush_to_disk(aside / name)
        flush_to_disk(aside)
        aside.rename(folder)
        flush_to_disk(folder.parent)
    except OSError as error:
        if folder.is_dir():
            raise StorageError(f"{folder} already holds a bundle", hint="name another --out or remove it") from error
        raise StorageError(
            f"cannot write {folder}: {error.strerror or error}", hint="check free space and permissions"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_bundle(folder: Path) -> Bundle:
    """Read a trained asset and verify its weights by hash.

    Raises:
        RunError: a file is missing, of another schema version, or does not match its hash.
    """
    try:
        facts = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        content = (folder / "model.pt").read_bytes()
    except FileNotFoundError as error:
        raise RunError(f"{folder} is no complete bundle: {Path(error.filename).name} is missing") from error
    except ValueError as error:
        raise RunError(f"{folder / 'bundle.json'} is not valid JSON: {error}") from error
    try:
        return _restored(folder, facts, content)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ConfigError) as error:
        raise RunError(
            f"{folder / 'bundle.json'} is damaged: {describe_damage(error)}", hint="restore it, or train again"
        ) from error


def _restored(folder: Path, facts: dict[str, Any], content: bytes) -> Bundle:
    if not isinstance(facts, dict):
        raise TypeError("expected an object")
    if facts.get("schema_version") != SCHEMA_VERSION:
        raise RunError(
            f"{folder} has schema version {facts.get('schema_version')}, expected {SCHEMA_VERSION}",
            hint="retrain with this version of b3dist",
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != facts["model_sha256"]:
        raise RunError(f"{folder / 'model.pt'} has sha256 {digest}, expected {facts['model_sha256']}: the file changed")
    config = Config.from_dict(facts["config"])
    model = LstmMtl(len(facts["feature_names"]), config.model)
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True, map_location="cpu"))
    return Bundle(
        path=folder,
        facts=facts,
        config=config,
        model=model.eval(),
        scaler=Scaler(mean=np.array(facts["scaler"]["mean"]), scale=np.array(facts["scaler"]["scale"])),
        return_target=ReturnTarget(**facts["return_target"]),
    )


def serialise_weights(state: Mapping[str, torch.Tensor]) -> bytes:
    """model.pt's bytes: one version of torch writes the same weights as the same bytes, wherever they lay before."""
    weights = {name: tensor.detach().clone() for name, tensor in state.items()}
    serialised = io.BytesIO()  # torch.save into a file answers a full disk with an internal RuntimeError
    torch.save(weights, serialised)
    return serialised.getvalue()


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions that decide the numbers."""
    packages = ("torch", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
    own = {"python": platform.python_version(), "b3dist": __version__}  # on a cluster b3dist need not be installed
    return own | {name: importlib.metadata.version(name) for name in packages}


def _as_sklearn(scaler: Scaler, feature_names: list[str]) -> StandardScaler:
    fitted = StandardScaler()
    fitted.mean_, fitted.scale_ = scaler.mean, scaler.scale
    fitted.var_ = np.square(scaler.scale)
    fitted.n_features_in_ = len(feature_names)
    fitted.feature_names_in_ = np.array(feature_names, dtype=object)
    return fitted


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False, default=str) + "\n", encoding="utf-8")
