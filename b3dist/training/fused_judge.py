"""A part's windows of K models under their current weights, dropout off: losses and scores."""

from dataclasses import dataclass

import torch
from torch import Tensor

from b3dist.data.schema import ACTIONS
from b3dist.model.stacked import LSTM_NAMES, Weights, apply_heads
from b3dist.model.stacked_losses import loss_terms
from b3dist.model.stacked_lstm import last_hidden_at_evaluation, project_rows
from b3dist.training.fused_data import ReturnUnits, StackRows, StackWindows
from b3dist.training.fused_state import Hyperparameters
from b3dist.training.trainer import EVALUATION_BATCH


@dataclass(frozen=True)
class Judgement:
    """Of each model's windows, (K,) float64."""

    loss: Tensor
    macro_f1: Tensor
    mae: Tensor
    """Mean absolute return error, a fraction."""


@torch.no_grad()
def judge_windows(
    weights: Weights,
    windows: StackWindows,
    *,
    rows: StackRows,
    hyper: Hyperparameters,
    units: ReturnUnits,
    lookback: int,
) -> Judgement:
    """Loss, as it is optimised but over every window once, and scores."""
    logits, returns = predict_stack(weights, rows.values, windows.starts, lookback=lookback)
    returns = returns.to(torch.float64)
    terms = loss_terms(
        logits.to(torch.float64),
        returns,
        action=windows.action,
        target=windows.target,
        gamma=hyper.gamma,
        focal_weights=hyper.action_weight[:, None] * windows.share * windows.class_weight,
        squared_weights=hyper.return_weight[:, None] * windows.share,
    )
    fraction = returns * units.scale[:, None] + units.mean[:, None]
    error = (fraction - windows.future_return).abs() * windows.share
    macro_f1 = _macro_f1(windows.action, logits.argmax(dim=2), windows.share > 0)
    return Judgement(_sum_windows(terms), macro_f1, _sum_windows(error))


def predict_stack(weights: Weights, rows: Tensor, starts: Tensor, *, lookback: int) -> tuple[Tensor, Tensor]:
    """Logits (K, N, 3) and returns (K, N) of windows of rows (K, R, F) beginning at starts (K, N), dropout off."""
    weight_ih, weight_hh, bias_ih, bias_hh = (weights[name] for name in LSTM_NAMES)
    projected = project_rows(rows, weight_ih, bias_ih, bias_hh)
    parts = [
        apply_heads(weights, last_hidden_at_evaluation(projected, chunk, weight_hh, lookback=lookback))
        for chunk in torch.split(starts, EVALUATION_BATCH, dim=1)
    ]
    return torch.cat([logits for logits, _ in parts], dim=1), torch.cat([returns for _, returns in parts], dim=1)


def _sum_windows(values: Tensor) -> Tensor:
    """Sums over the windows, (K,), of values (K, N): in chunks of a fixed size, so that padding changes no bit."""
    num_chunks = -(-values.shape[1] // EVALUATION_BATCH)
    padded = torch.nn.functional.pad(values, (0, num_chunks * EVALUATION_BATCH - values.shape[1]))
    chunks = padded.view(len(values), num_chunks, EVALUATION_BATCH).sum(dim=2)
    total = chunks[:, 0].clone()
    for chunk in range(1, num_chunks):
        total += chunks[:, chunk]
    return total


def _macro_f1(truth: Tensor, predicted: Tensor, valid: Tensor) -> Tensor:
    """Macro F1 over the classes present in truth or prediction, (K,) float64; arguments (K, N)."""
    classes = torch.arange(len(ACTIONS), device=truth.device)
    true = (truth[:, :, None] == classes) & valid[:, :, None]
    called = (predicted[:, :, None] == classes) & valid[:, :, None]
    hits = (true & called).sum(dim=1).to(torch.float64)
    total = (true.sum(dim=1) + called.sum(dim=1)).to(torch.float64)
    f1 = torch.where(total > 0, 2.0 * hits / total.clamp(min=1), 0.0)
    return f1.sum(dim=1) / (total > 0).sum(dim=1)
