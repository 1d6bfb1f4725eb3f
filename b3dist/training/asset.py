"""One asset end to end: read its bars, prepare, train, evaluate, write. What `train` and every fleet worker call."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from torch import Tensor

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.data.schema import SCHEMA_VERSION
from b3dist.data.windows import BAR_COLUMNS, SPLITS, AssetData, count_actions, prepare_asset
from b3dist.training.bundle import library_versions, write_bundle
from b3dist.training.evaluation import judge_predictions, judge_start, tabulate_predictions
from b3dist.training.question import require_same_question
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.trainer import EpochRecord, Fit, fit_asset
from b3dist.training.warm_start import (
    InitialModel,
    InitialModels,
    basis_change,
    describe_weights,
    starting_state,
    without_seen_windows,
)


@dataclass(frozen=True, kw_only=True)
class TrainedAsset:
    """What came of one asset."""

    ticker: str
    path: Path
    """The committed bundle."""
    metrics: dict[str, Any]
    """metrics.json."""
    num_train_windows: int
    epochs: int
    windows_trained: int
    """Training windows x epochs."""
    seconds: float


def train_asset(
    lake: Lake,
    ticker: str,
    config: Config,
    assets_dir: Path,
    *,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
    initial_models: InitialModels | None = None,
) -> TrainedAsset:
    """Train one asset and commit its bundle as assets_dir/TICKER.

    The numbers depend on the lake's bars, the configuration, its seed and the initial model alone, not on what else
    runs.

    Raises:
        InsufficientDataError: the asset is to be skipped by rule.
        TrainingError: the loss diverged.
        StorageError: the bundle could not be written.
    """
    started = time.perf_counter()
    prepared = prepare_training(lake, ticker, config, initial_models)
    fit = fit_asset(prepared.data, config, device=device, on_epoch=on_epoch, start=prepared.start)
    seconds = time.perf_counter() - started
    return commit_asset(prepared, fit, config, assets_dir, lake=lake, engine="single", fit_seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class PreparedAsset:
    """An asset ready to be fitted by either engine."""

    data: AssetData
    initial: InitialModel | None = None
    start: Mapping[str, Tensor] | None = None
    """Weights to begin with instead of drawn ones."""


def prepare_training(
    lake: Lake, ticker: str, config: Config, initial_models: InitialModels | None = None
) -> PreparedAsset:
    """Read an asset and, where it has an initial model, its start.

    Raises:
        InsufficientDataError: the asset is to be skipped by rule.
    """
    data = load_asset(lake, ticker, config)
    initial = initial_models(ticker) if initial_models is not None else None
    if initial is None:
        return PreparedAsset(data=data)
    require_same_question(initial.config, config)
    data = without_seen_windows(data, initial)
    target = ReturnTarget.fit(data.train.future_return, config.loss.return_unit)
    start = starting_state(initial, data, target, basis=basis_change(lake, data, initial))
    return PreparedAsset(data=data, initial=initial, start=start)


def commit_asset(
    prepared: PreparedAsset,
    fit: Fit,
    config: Config,
    assets_dir: Path,
    *,
    lake: Lake,
    engine: Literal["single", "stack"],
    fit_seconds: float,
) -> TrainedAsset:
    """Evaluate a fitted asset and commit its bundle as assets_dir/TICKER.

    Args:
        prepared: what it was fitted to.
        fit: by either engine.
        config: of the fit.
        assets_dir: must exist.
        lake: where the data is from.
        engine: recorded in bundle.json; the engines agree within float error, not in every bit.
        fit_seconds: what reading and fitting took.

    Raises:
        StorageError: the bundle could not be written.
    """
    started = time.perf_counter()
    data, initial = prepared.data, prepared.initial
    predictions = tabulate_predictions(data, fit, config)
    metrics = judge_predictions(predictions, fit, config)
    if prepared.start is not None:
        metrics["start"] = judge_start(data, prepared.start, fit, config, kept=metrics)
    path = assets_dir / data.ticker
    write_bundle(
        path,
        facts={
            **describe(data, fit, config, lake_manifest_hash=lake.manifest_hash),
            "engine": engine,
            **describe_weights(initial, best_epoch=fit.best_epoch, anchor=data.anchor),
            **({"initial_model": initial.describe()} if initial is not None else {}),
        },
        model=fit.model,
        scaler=data.scaler,
        history=pa.Table.from_pylist([asdict(record) for record in fit.history]),
        predictions=predictions,
        metrics=metrics,
    )
    epochs = len(fit.history)
    return TrainedAsset(
        ticker=data.ticker,
        path=path,
        metrics=metrics,
        num_train_windows=len(data.train),
        epochs=epochs,
        windows_trained=len(data.train) * epochs,
        seconds=fit_seconds + time.perf_counter() - started,
    )


def load_asset(lake: Lake, ticker: str, config: Config) -> AssetData:
    """An asset's rows and windows from the lake."""
    bars = lake.bars(ticker, BAR_COLUMNS)
    columns = {name: bars[name].to_numpy() for name in BAR_COLUMNS}
    return prepare_asset(ticker, columns, lake.calendar(), config.data)


def describe(data: AssetData, fit: Fit, config: Config, *, lake_manifest_hash: str) -> dict[str, Any]:
    """bundle.json: all a reader needs to use the weights, and where they came from."""
    return {
        "schema_version": SCHEMA_VERSION,
        "ticker": data.ticker,
        "config": config.to_dict(),
        "seed": config.seed,
        "feature_set": config.data.feature_set,
        "feature_names": list(data.feature_names),
        "label_set": config.data.label_set,
        "scaler": {"mean": data.scaler.mean.tolist(), "scale": data.scaler.scale.tolist()},
        "return_target": asdict(fit.return_target),
        "anchor": data.anchor.isoformat(),
        "splits": {name: _describe_split(data, name) for name in SPLITS},
        "dropped_windows": dict(data.dropped),
        "lake_manifest_hash": lake_manifest_hash,
        "versions": library_versions(),
    }


def _describe_split(data: AssetData, name: str) -> dict[str, Any]:
    part = data.part(name)
    if len(part) == 0:  # of an asset of a pooled run only
        return {"first": None, "last": None, "num_windows": 0, "actions": count_actions(part.action)}
    first, last = (str(data.sessions[row].astype("datetime64[D]")) for row in (part.ends[0], part.ends[-1]))
    return {"first": first, "last": last, "num_windows": len(part), "actions": count_actions(part.action)}
