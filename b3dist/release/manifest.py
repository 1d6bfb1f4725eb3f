"""weights.pt and the manifest's entries <-> a release in memory; everything in them is plain data."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from b3dist.config import Config
from b3dist.data.windows import Scaler
from b3dist.errors import ReleaseError
from b3dist.model.stacked import stack_states
from b3dist.release.parts import AssetModel, AssetPart
from b3dist.release.released import ModelGroup, Release, ReleasedAsset, ReleasedModel
from b3dist.release.seal import RESTORE, WEIGHTS, read_manifest, read_verified
from b3dist.training.bundle import serialise_weights
from b3dist.training.return_unit import ReturnTarget


def stack_models(parts: Sequence[AssetPart]) -> tuple[list[ModelGroup], dict[str, Any], list[dict[str, Any]]]:
    """Every model of a release in groups of one shape.

    Groups of served models come first, so that a server that needs no others finds them together.

    Returns:
        The groups; ticker -> {"evaluated", "served"} as the manifest holds them; the groups as the manifest holds them.

    Raises:
        ReleaseError: a slot does not serialise to the bytes its model was hashed from.
    """
    wanted = [("served", part.ticker, part.served) for part in parts]
    wanted += [("evaluated", part.ticker, part.evaluated) for part in parts if part.evaluated is not part.served]
    members: dict[tuple[Any, ...], list[tuple[str, AssetModel]]] = {}
    entries: dict[str, dict[str, Any]] = {}
    for role, ticker, model in wanted:
        key = (role, model.data, model.model, model.feature_names)
        slots = members.setdefault(key, [])
        entry = _describe_model(model, group=list(members).index(key), slot=len(slots))
        entries.setdefault(ticker, {"evaluated": entry})[role] = entry
        slots.append((ticker, model))
    groups, described = [], []
    for (role, data, shape, feature_names), slots in members.items():
        weights = stack_states([model.state for _, model in slots])
        for slot, (ticker, model) in enumerate(slots):
            verify_model(weights, slot, model.model_sha256, ticker=ticker)
        groups.append(ModelGroup(data=data, model=shape, feature_names=feature_names, weights=weights))
        described.append(
            {
                "role": role,
                **{name: Config(data=data, model=shape).to_dict()[name] for name in ("data", "model")},
                "feature_names": list(feature_names),
                "tickers": [ticker for ticker, _ in slots],
            }
        )
    return groups, entries, described


def verify_model(weights: Mapping[str, Tensor], slot: int, model_sha256: str, *, ticker: str) -> None:
    """Take one model out of a stack and compare the hash of its model.pt with the one it was trained under.

    Raises:
        ReleaseError: they differ.
    """
    digest = hashlib.sha256(serialise_weights({name: stack[slot] for name, stack in weights.items()})).hexdigest()
    if digest != model_sha256:
        raise ReleaseError(
            f"the weights of {ticker} have sha256 {digest}, expected {model_sha256}",
            hint="use the version of torch that trained the run (bundle.json names it)",
        )


def serialise_groups(groups: Sequence[ModelGroup]) -> bytes:
    """The bytes of weights.pt: a list with one dictionary of stacked tensors per group."""
    serialised = io.BytesIO()
    torch.save([group.weights for group in groups], serialised)
    return serialised.getvalue()


def open_release(path: Path) -> Release:
    """Read a release, every file verified by hash.

    Raises:
        ReleaseError: a file is missing, changed or of another schema version.
    """
    manifest, digest = read_manifest(path)
    if manifest["release_id"] != path.name:
        raise ReleaseError(f"{path} holds the release {manifest['release_id']}: the folder was renamed", hint=RESTORE)
    contents = {name: read_verified(path / name, expected) for name, expected in manifest["files"].items()}
    # What is loaded is what was hashed: the file is not read a second time.
    stacks = torch.load(io.BytesIO(contents[WEIGHTS]), weights_only=True, map_location="cpu")
    groups = tuple(_read_group(entry, weights) for entry, weights in zip(manifest["groups"], stacks, strict=True))
    return Release(
        release_id=manifest["release_id"],
        path=path,
        manifest=manifest,
        manifest_sha256=digest,
        assets={ticker: _read_asset(ticker, entry) for ticker, entry in manifest["assets"].items()},
        groups=groups,
    )


def _describe_model(model: AssetModel, *, group: int, slot: int) -> dict[str, Any]:
    return {
        "group": group,
        "slot": slot,
        "model_sha256": model.model_sha256,
        "anchor": model.anchor.isoformat(),
        "trained_until": model.trained_until.isoformat() if model.trained_until else None,
        "scaler": {"mean": model.scaler.mean.tolist(), "scale": model.scaler.scale.tolist()},
        "return_target": asdict(model.return_target),
    }


def _read_group(entry: Mapping[str, Any], weights: dict[str, Tensor]) -> ModelGroup:
    config = Config.from_dict({name: entry[name] for name in ("data", "model")})
    return ModelGroup(
        data=config.data, model=config.model, feature_names=tuple(entry["feature_names"]), weights=weights
    )


def _read_asset(ticker: str, entry: Mapping[str, Any]) -> ReleasedAsset:
    evaluated = _read_model(entry["evaluated"])
    served = evaluated if entry["served"] == entry["evaluated"] else _read_model(entry["served"])
    return ReleasedAsset(
        ticker=ticker,
        served=served,
        evaluated=evaluated,
        run_id=entry["run_id"],
        metrics=entry["metrics"],
        label_set=entry["label_set"],
        carried_over=entry["carried_over"],
        source=entry["source"],
        facts=entry,
    )


def _read_model(entry: Mapping[str, Any]) -> ReleasedModel:
    scaler = entry["scaler"]
    until = entry.get("trained_until", entry["anchor"])  # releases made before manifests said it
    return ReleasedModel(
        group=entry["group"],
        slot=entry["slot"],
        model_sha256=entry["model_sha256"],
        anchor=date.fromisoformat(entry["anchor"]),
        trained_until=date.fromisoformat(until) if until else None,
        scaler=Scaler(mean=np.array(scaler["mean"]), scale=np.array(scaler["scale"])),
        return_target=ReturnTarget(**entry["return_target"]),
    )
