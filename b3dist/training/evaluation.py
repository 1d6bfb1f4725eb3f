"""What a fitted asset predicts, and how good that is: predictions.parquet and metrics.json."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from b3dist.config import Config
from b3dist.data.windows import AssetData
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.training.metrics import evaluate_part
from b3dist.training.skill import judge_part
from b3dist.training.trainer import Fit, predict

_OF_A_START = ("num_windows", "accuracy", "macro_f1", "confusion", "return")
"""Of a part's metrics, what is kept of a warm start's: enough to compare; the baselines are the kept weights'."""


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


def judge_predictions(predictions: pa.Table, fit: Fit, config: Config) -> dict[str, Any]:
    """metrics.json of a fitted asset: both parts of its predictions, and the losses."""
    parts = {name: evaluate_predictions(predictions, name, config.data.horizon) for name in ("val", "test")}
    return {**parts, **loss_metrics(fit)}


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
        parts = judge_predictions(predictions, fit, config)
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
