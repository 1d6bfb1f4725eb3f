"""The card's network: LSTM -> last step -> dropout -> action head and return head."""

import math

import torch
from torch import Tensor, nn

from b3dist.config import ModelConfig
from b3dist.data.schema import ACTIONS

ABSENT_LOGIT = math.log(1e-3)
"""Initial bias of an action that the training part does not hold."""


class LstmMtl(nn.Module):
    """One asset's model.

    Args:
        num_features: F, columns of a row.
        config: hidden size; the dropout rate is applied by the caller's masks.
        generator: source of the initial weights: uniform within 1 / sqrt(hidden size), as PyTorch's layers draw.
    """

    def __init__(self, num_features: int, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.lstm = nn.LSTM(num_features, config.hidden_size, batch_first=True)
        self.action_head = nn.Linear(config.hidden_size, len(ACTIONS))
        self.return_head = nn.Linear(config.hidden_size, 1)
        self.low_precision = False
        """Run the recurrent layer in bfloat16: for training only."""
        if generator is not None:
            bound = 1.0 / math.sqrt(config.hidden_size)
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, windows: Tensor, dropout_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Action logits and returns of a batch of windows.

        Args:
            windows: (B, lookback, F) z-scores.
            dropout_mask: (B, hidden size), 0 or 1 / (1 - rate); None at evaluation.

        Returns:
            Logits (B, 3), and returns (B,) in the unit the model was trained in.
        """
        hidden = self._hidden_states(windows)[:, -1].to(windows.dtype)
        if dropout_mask is not None:
            hidden = hidden * dropout_mask
        return self.action_head(hidden), self.return_head(hidden).squeeze(1)

    def _hidden_states(self, windows: Tensor) -> Tensor:
        """(B, lookback, hidden size)."""
        if self.low_precision and windows.device.type != "cpu":
            return lstm_in_bf16(self.lstm, windows)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low_precision):
            hidden: Tensor = self.lstm(windows)[0]
        return hidden


def lstm_in_bf16(lstm: nn.LSTM, windows: Tensor) -> Tensor:
    """Hidden states (B, lookback, H) of a layer run in bfloat16, differentiable in its float32 weights.

    What autocast does on a CPU; on GPUs it would run cuDNN's layers in float16, whatever type it is given, where small
    gradients are lost.
    """
    parameters = list(lstm.parameters())
    # One buffer in the layer's own order, as cuDNN wants its weights.
    flat = torch.cat([parameter.reshape(-1) for parameter in parameters]).to(torch.bfloat16)
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    weights = [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]
    inputs = windows.to(torch.bfloat16)
    zeros = inputs.new_zeros(1, len(inputs), lstm.hidden_size)
    hidden: Tensor = torch.lstm(inputs, (zeros, zeros), weights, True, 1, 0.0, lstm.training, False, True)[0]
    return hidden


def discourage_absent_actions(model: LstmMtl, counts: Tensor) -> None:
    """Start actions without a training window, counts (3,) == 0, at a probability of about one in a thousand.

    No gradient ever teaches such an action's logit that it is wrong once the others are right enough for the focal
    loss, so an untrained model's opinion of it would survive into the predictions.
    """
    with torch.no_grad():
        model.action_head.bias[counts == 0] = ABSENT_LOGIT


def draw_dropout_masks(num_windows: int, config: ModelConfig, generator: torch.Generator) -> Tensor:
    """Masks of a whole epoch, (num_windows, hidden size): 0 with probability `dropout`, else 1 / (1 - dropout)."""
    keep = 1.0 - config.dropout
    draws = torch.rand((num_windows, config.hidden_size), generator=generator)
    return (draws < keep).to(torch.float32).div_(keep)
