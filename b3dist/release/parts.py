"""What a release is made of: one asset at a time, from a trained bundle or from the release before."""

import csv
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from b3dist.config import DataConfig, ModelConfig
from b3dist.data.windows import Scaler
from b3dist.errors import ReleaseError, describe_damage
from b3dist.release.released import Release, ReleasedModel
from b3dist.training.bundle import read_bundle
from b3dist.training.return_unit import ReturnTarget


@dataclass(frozen=True, kw_only=True)
class AssetModel:
    """One model on its way into a release."""

    state: Mapping[str, Tensor]
    model_sha256: str
    anchor: date
    trained_until: date | None
    """None: on nothing."""
    scaler: Scaler
    return_target: ReturnTarget
    data: DataConfig
    model: ModelConfig
    feature_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AssetPart:
    """One asset on its way into a release."""

    ticker: str
    evaluated: AssetModel
    served: AssetModel
    """The same object as `evaluated` unless refitted."""
    facts: Mapping[str, Any]
    """Its entry in the manifest, without the models."""
    predictions: pa.Table
    """predictions.parquet of the bundle, without the ticker."""


def part_of_bundle(folder: Path, *, run_id: str) -> AssetPart:
    """The best weights of an asset that a run trained, verified by hash.

    Raises:
        RunError: the bundle is incomplete or damaged.
    """
    bundle = read_bundle(folder)
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        predictions = pq.read_table(folder / "predictions.parquet", partitioning=None)
        learning_rates = _learning_rates(folder / "history.csv", metrics["best_epoch"])
        anchor, trained_until = date.fromisoformat(bundle.facts["anchor"]), bundle.trained_until
        entry = {**_entry(bundle.facts, run_id), "learning_rates": learning_rates, "metrics": metrics, "refit": None}
        date.fromisoformat(entry["splits"]["test"]["last"])  # what the release's age is told from
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ReleaseError(
            f"the bundle {folder} cannot be released: {describe_damage(error)}",
            hint="train the asset again, or restore the folder",
        ) from error
    model = AssetModel(
        state=bundle.model.state_dict(),
        model_sha256=bundle.facts["model_sha256"],
        anchor=anchor,
        trained_until=trained_until,
        scaler=bundle.scaler,
        return_target=bundle.return_target,
        data=bundle.config.data,
        model=bundle.config.model,
        feature_names=tuple(bundle.facts["feature_names"]),
    )
    return AssetPart(ticker=folder.name, evaluated=model, served=model, facts=entry, predictions=predictions)


def _entry(facts: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """What the manifest takes over from bundle.json."""
    return {
        "run_id": run_id,
        "source": facts.get("source", "own"),
        "initial_model": facts.get("initial_model"),
        "carried_over": False,
        "carried_from": None,
        "age_sessions": 0,
        "label_set": facts["label_set"],
        "features": list(facts["feature_names"]),
        "seed": facts["seed"],
        "config": facts["config"],
        "splits": facts["splits"],
        "dropped_windows": facts["dropped_windows"],
        "lake_manifest_hash": facts["lake_manifest_hash"],
        "versions": facts["versions"],
    }


def part_of_release(release: Release, ticker: str, *, age_sessions: int) -> AssetPart:
    """An asset of an earlier release, its weights bit for bit, marked as carried over."""
    asset = release.assets[ticker]
    evaluated = _model_of(release, asset.evaluated)
    served = evaluated if asset.served is asset.evaluated else _model_of(release, asset.served)
    left_out = ("evaluated", "served")
    facts = {name: value for name, value in asset.facts.items() if name not in left_out}
    origin = asset.facts["carried_from"] or release.release_id
    return AssetPart(
        ticker=ticker,
        evaluated=evaluated,
        served=served,
        facts={**facts, "carried_over": True, "carried_from": origin, "age_sessions": age_sessions},
        predictions=release.predictions(ticker).drop_columns("ticker"),
    )


def refitted(part: AssetPart, model: AssetModel, refit: Mapping[str, Any]) -> AssetPart:
    """The part with another model to serve, and how that was made."""
    return dataclasses.replace(part, served=model, facts={**part.facts, "refit": refit})


def keeps_start(facts: Mapping[str, Any]) -> bool:
    """Whether an asset's entry in the manifest is of a warm start that no epoch of training improved on."""
    return facts["initial_model"] is not None and not facts["learning_rates"]


def last_test_session(part: AssetPart) -> date:
    """The newest session that any of the asset's test windows ends on."""
    return date.fromisoformat(part.facts["splits"]["test"]["last"])


def test_rows(predictions: pa.Table) -> pa.Table:
    """The rows of the test part."""
    return predictions.filter(pc.equal(predictions["split"], "test"))


def _learning_rates(history: Path, best_epoch: int) -> list[float]:
    """The learning rates of the kept weights, one per epoch: all that a refit needs of history.csv."""
    with history.open(newline="", encoding="utf-8") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    if len(rates) < best_epoch:
        raise ValueError(f"history.csv has {len(rates)} epochs, its best is {best_epoch}")
    return rates[:best_epoch]


def _model_of(release: Release, model: ReleasedModel) -> AssetModel:
    group = release.groups[model.group]
    return AssetModel(
        state=release.state(model),
        model_sha256=model.model_sha256,
        anchor=model.anchor,
        trained_until=model.trained_until,
        scaler=model.scaler,
        return_target=model.return_target,
        data=group.data,
        model=group.model,
        feature_names=group.feature_names,
    )
