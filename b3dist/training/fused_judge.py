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


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Of each model's windows, float64, (K,) unless said."""

    loss: Tensor
    mae: Tensor
    """Mean absolute return error, a fraction."""
    squared_error: Tensor
    """Of the returns, summed over the windows, fractions squared."""
    confusion: Tensor
    """(K, 3, 3) windows by true (rows) and predicted action."""

    @property
    def macro_f1(self) -> Tensor:
        """Over the classes present in truth or prediction."""
        hits = self.confusion.diagonal(dim1=1, dim2=2)
        total = self.confusion.sum(dim=1) + self.confusion.sum(dim=2)
        f1 = torch.where(total > 0, 2.0 * hits / total.clamp(min=1), 0.0)
        return f1.sum(dim=1) / (total > 0).sum(dim=1)


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
    error, valid = fraction - windows.future_return, windows.share > 0
    return Judgement(
        loss=_sum_windows(terms),
        mae=_sum_windows(error.abs() * windows.share),
        squared_error=_sum_windows(error.square() * valid),
        confusion=_confusion(windows.action, logits.argmax(dim=2), valid),
    )


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


def _confusion(truth: Tensor, predicted: Tensor, valid: Tensor) -> Tensor:
    """Windows by true and predicted class, (K, 3, 3) float64; arguments (K, N)."""
    classes = torch.arange(len(ACTIONS), device=truth.device)
    true = (truth[:, :, None] == classes) & valid[:, :, None]
    called = predicted[:, :, None] == classes
    return (true[:, :, :, None] & called[:, :, None]).sum(dim=1).to(torch.float64)
