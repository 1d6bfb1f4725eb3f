"""One asset end to end: read its bars, prepare, train, evaluate, write. What `train` and every fleet worker call."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.data.schema import SCHEMA_VERSION
from b3dist.data.windows import BAR_COLUMNS, SPLITS, AssetData, count_actions, prepare_asset
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.training.bundle import library_versions, write_bundle
from b3dist.training.metrics import evaluate_part
from b3dist.training.question import require_same_question
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.skill import judge_part
from b3dist.training.trainer import EpochRecord, Fit, fit_asset, predict
from b3dist.training.warm_start import (
    InitialModel,
    InitialModels,
    basis_change,
    describe_weights,
    starting_state,
    without_seen_windows,
)

_OF_A_START = ("num_windows", "accuracy", "macro_f1", "confusion", "return")
"""Of a part's metrics, what is kept of a warm start's: enough to compare; the baselines are the kept weights'."""


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
    metrics = {
        **{name: evaluate_predictions(predictions, name, config.data.horizon) for name in ("val", "test")},
        **loss_metrics(fit),
    }
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


def tabulate_predictions(data: AssetData, fit: Fit, config: Config) -> pa.Table:
    """predictions.parquet: one row per validation and test window, ascending by session."""
    rows = torch.from_numpy(data.features)
    parts = []
    for name in ("val", "test"):
        part = data.part(name)
        outputs = predict(fit.model, rows, torch.from_numpy(part.ends - config.data.lookback + 1), config.data.lookback)
        probabilities = torch.softmax(outputs.logits.to(torch.float64), dim=1).numpy()
        close = data.close[part.ends]
        parts.append(
            pa.table(
                {
                    "session": pa.array(data.sessions[part.ends].astype("datetime64[D]"), type=pa.date32()),
                    "split": pa.array([name] * len(part), type=pa.string()),
                    "close": close,
                    "future_close": part.future_close,
                    "y_action": part.action,
                    "y_return": part.future_return,
                    "p_buy": probabilities[:, 0],
                    "p_sell": probabilities[:, 1],
                    "p_hold": probabilities[:, 2],
                    "action": probabilities.argmax(axis=1).astype(np.int64),
                    "return_pred": fit.return_target.decode(outputs.returns.to(torch.float64)).numpy(),
                    "spans_cash_ex_date": part.spans_cash,
                }
            )
        )
    return pa.concat_tables(parts)


def evaluate_predictions(predictions: pa.Table, name: str, horizon: int) -> dict[str, Any]:
    """Metrics, baselines and skill of the part called name, from predictions.parquet's rows alone."""
    part = predictions.filter(pc.equal(predictions["split"], name))
    columns = {column: part[column].to_numpy() for column in part.column_names if column not in ("session", "split")}
    metrics = evaluate_part(columns)
    skill = judge_part(columns["y_return"], columns["return_pred"], horizon=horizon, ic=metrics["return"]["ic"])
    return {**metrics, "skill": skill}


def judge_start(
    data: AssetData, start: Mapping[str, Tensor], fit: Fit, config: Config, *, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """What metrics.json says of a warm start before its first step, on the very windows the kept weights are judged on.

    Args:
        data: the asset.
        start: weights it began with.
        fit: what came of them.
        config: of the fit.
        kept: the kept weights' metrics by part.
    """
    parts = kept
    if fit.best_epoch > 0:  # else the kept weights are the start
        model = LstmMtl(data.features.shape[1], config.model)
        model.load_state_dict(start)
        predictions = tabulate_predictions(data, replace(fit, model=model), config)
        parts = {name: evaluate_predictions(predictions, name, config.data.horizon) for name in ("val", "test")}
    return {name: {key: parts[name][key] for key in _OF_A_START} for name in ("val", "test")}


def loss_metrics(fit: Fit) -> dict[str, Any]:
    """The overfitting figures of metrics.json: losses of the kept weights over every window, dropout off."""
    gap = ratio = None
    if fit.train_loss is not None and fit.val_loss is not None:
        gap = fit.val_loss - fit.train_loss
        ratio = fit.val_loss / fit.train_loss if fit.train_loss > 0 else None
    return {
        "train_loss": fit.train_loss,
        "val_loss": fit.val_loss,
        "overfit_gap": gap,
        "overfit_ratio": ratio,
        "best_epoch": fit.best_epoch,
        "epochs": len(fit.history),
    }


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
