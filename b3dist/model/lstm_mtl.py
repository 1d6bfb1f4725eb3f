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
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=self.low_precision):
            hidden = self.lstm(windows)[0][:, -1]
        hidden = hidden.to(windows.dtype)
        if dropout_mask is not None:
            hidden = hidden * dropout_mask
        return self.action_head(hidden), self.return_head(hidden).squeeze(1)


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
