"""What a pooled training leaves: a bundle per asset, as single training writes it, and one of the model as a whole.

An asset's bundle holds the pooled weights with the scaler, return map and anchor of that asset: whatever reads bundles
need not know that one model serves them all. `MODEL_FOLDER` holds the model with the scaler of all assets together:
what an asset without a bundle is scored with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from b3dist.config import Config
from b3dist.data.pooled import PooledData
from b3dist.data.schema import SCHEMA_VERSION
from b3dist.data.windows import AssetData
from b3dist.training.asset import describe
from b3dist.training.bundle import library_versions, write_bundle
from b3dist.training.evaluation import judge_predictions, loss_metrics, tabulate_predictions
from b3dist.training.metrics import Floats, evaluate_part, regression_metrics
from b3dist.training.pooled import POOLED, PooledFitting
from b3dist.training.skill import judge_gain
from b3dist.training.trainer import Fit, Predictions

MODEL_FOLDER = "pooled"
"""Beside `assets` in a run's folder."""


class PooledWriter:
    """Evaluates a finished training once and writes its bundles.

    Args:
        fitting: trained; its model is moved to the best epoch's weights. Every worker must make one: predictions of the
            training and validation part are shared work.
        config: of the run, with the calendar cut filled in.
        lake_manifest_hash: names the lake's content.
    """

    def __init__(self, fitting: PooledFitting, config: Config, *, lake_manifest_hash: str) -> None:
        self._fitting = fitting
        self._config = config
        self._lake_manifest_hash = lake_manifest_hash
        fitting.weights.copy_(fitting.best_weights)
        self._outputs = {name: fitting.predict(name) for name in ("train", "val")}
        self._model = fitting.best_model()

    def write_asset(self, number: int, assets_dir: Path) -> None:
        """Commit the bundle of one asset, which must have test windows.

        Raises:
            StorageError: it could not be written.
        """
        asset = self._fitting.data.assets[number]
        fit = self._fit_of(number)
        predictions = tabulate_predictions(asset, fit, self._config)
        metrics = judge_predictions(predictions, fit, self._config)
        facts = {
            **describe(asset, fit, self._config, lake_manifest_hash=self._lake_manifest_hash),
            "source": "pooled",
            "trained_until": _eve_of_cut(self._config),
            "own_scale": bool(self._fitting.data.own_scale[number]),
        }
        write_bundle(
            assets_dir / asset.ticker,
            facts=facts,
            model=self._model,
            scaler=asset.scaler,
            history=_history(fit),
            predictions=predictions,
            metrics=metrics,
        )

    def write_model(self, folder: Path, predictions: Mapping[str, pa.Table]) -> None:
        """Commit the bundle of the model as a whole.

        Args:
            folder: of the bundle.
            predictions: of every asset with a bundle, by ticker.

        Raises:
            StorageError: it could not be written.
        """
        fitting, data = self._fitting, self._fitting.data
        fit = Fit(
            model=self._model,
            return_target=fitting.pooled_target,
            history=fitting.history,
            best_epoch=fitting.best_epoch,
            train_loss=fitting.evaluate("train", self._outputs["train"]),
            val_loss=fitting.best_loss,
        )
        table = pa.concat_tables(
            [one.add_column(0, "ticker", pa.array([ticker] * len(one))) for ticker, one in predictions.items()]
        )
        metrics = {**evaluate_pooled(table, self._config.data.horizon), **loss_metrics(fit)}
        write_bundle(
            folder,
            facts=describe_pooled(data, fit, self._config, lake_manifest_hash=self._lake_manifest_hash),
            model=self._model,
            scaler=data.scaler,
            history=_history(fit),
            predictions=table,
            metrics=metrics,
        )

    def _fit_of(self, number: int) -> Fit:
        """The pooled model as if it had been trained for one asset; its losses are over that asset's own windows."""
        fitting = self._fitting
        losses = {name: self._loss_of(number, name, outputs) for name, outputs in self._outputs.items()}
        return Fit(
            model=self._model,
            return_target=fitting.targets[number],
            history=fitting.history,
            best_epoch=fitting.best_epoch,
            train_loss=losses["train"],
            val_loss=losses["val"],
        )

    def _loss_of(self, number: int, name: str, outputs: Predictions) -> float | None:
        chosen = np.flatnonzero(self._fitting.data.part(name).asset == number)
        if len(chosen) == 0:
            return None
        return self._fitting.evaluate(name, outputs, torch.from_numpy(chosen).to(self._fitting.device))


def judged(asset: AssetData) -> str | None:
    """Why an asset gets no bundle, or None: a bundle's numbers are about windows the model has not seen."""
    if len(asset.test):
        return None
    return f"{asset.ticker} has no window in the test part; {len(asset.train)} of its windows were trained on"


def read_predictions(assets_dir: Path, tickers: Sequence[str]) -> dict[str, pa.Table]:
    """predictions.parquet of assets, by ticker."""
    return {ticker: pq.ParquetFile(assets_dir / ticker / "predictions.parquet").read() for ticker in tickers}


def evaluate_pooled(predictions: pa.Table, horizon: int) -> dict[str, Any]:
    """Metrics over all assets' windows, and what pooling them hides.

    Args:
        predictions: as predictions.parquet, with a column ticker.
        horizon: sessions to the target.

    Returns:
        For val and test: the metrics of metrics.json over all windows; `mean_over_assets` and its standard error for ic
        and rank_ic; `skill`, judged on the mean gain per session, since the windows of one session are no independent
        evidence.
    """
    columns = {name: predictions[name].to_numpy() for name in predictions.column_names}
    found = {}
    for name in ("val", "test"):
        part = {key: values[columns["split"] == name] for key, values in columns.items()}
        numeric = {key: values for key, values in part.items() if key not in ("session", "split", "ticker")}
        metrics = evaluate_part(numeric)
        gain = np.square(part["y_return"]) - np.square(part["y_return"] - part["return_pred"])
        found[name] = {
            **metrics,
            "skill": judge_gain(_mean_by(part["session"], gain), horizon=horizon, ic=metrics["return"]["ic"]),
            "mean_over_assets": _over_assets(part["ticker"], numeric),
        }
    return found


def describe_pooled(data: PooledData, fit: Fit, config: Config, *, lake_manifest_hash: str) -> dict[str, Any]:
    """bundle.json of the model as a whole; its anchor is the eve of the cut, since no single asset has it."""
    parts = {name: data.part(name) for name in ("train", "val", "test")}
    return {
        "schema_version": SCHEMA_VERSION,
        "ticker": POOLED,
        "source": "pooled",
        "config": config.to_dict(),
        "seed": config.seed,
        "feature_set": config.data.feature_set,
        "feature_names": list(data.assets[0].feature_names),
        "label_set": config.data.label_set,
        "scaler": {"mean": data.scaler.mean.tolist(), "scale": data.scaler.scale.tolist()},
        "return_target": asdict(fit.return_target),
        "anchor": None,
        "trained_until": _eve_of_cut(config),
        "cut": {"validation_from": str(data.config.validation_from), "test_from": str(data.config.test_from)},
        "splits": {name: {"num_windows": len(part)} for name, part in parts.items()},
        "tickers": [asset.ticker for asset in data.assets if len(asset.train)],
        "skipped": dict(data.skipped),
        "failed": dict(data.failed),
        "lake_manifest_hash": lake_manifest_hash,
        "versions": library_versions(),
    }


def _eve_of_cut(config: Config) -> str:
    """The last day before the cut: some asset's training windows or their targets reach it, and all share the weights.

    An asset's own anchor says less: it may lie earlier, and after the cut for an asset listed then.
    """
    assert config.data.validation_from is not None, "a pooled run's configuration holds its cut"
    return str(config.data.validation_from - timedelta(days=1))


def _history(fit: Fit) -> pa.Table:
    return pa.Table.from_pylist([asdict(record) for record in fit.history])


def _mean_by(keys: Any, values: Floats) -> Floats:
    """Mean of values: (n,) for each distinct key: (n,), in order of the keys."""
    _, groups = np.unique(keys, return_inverse=True)
    return np.bincount(groups, weights=values) / np.bincount(groups)


def _over_assets(tickers: Any, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Mean over assets, and its standard error, of the correlations; assets where one is undefined are left out."""
    per_asset = [
        regression_metrics({name: values[tickers == ticker] for name, values in columns.items()})["return"]
        for ticker in np.unique(tickers)
    ]
    found: dict[str, Any] = {"num_assets": len(per_asset)}
    for name in ("ic", "rank_ic"):
        values = np.array([one[name] for one in per_asset if one[name] is not None])
        found[name] = float(values.mean()) if len(values) else None
        found[f"{name}_standard_error"] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return found
