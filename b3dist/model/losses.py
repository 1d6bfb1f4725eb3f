"""The card's loss: action_weight x focal loss + return_weight x squared return error."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from b3dist.config import LossConfig


def focal_loss(logits: Tensor, actions: Tensor, *, gamma: float, class_weights: Tensor | None = None) -> Tensor:
    """Focal loss of each window, -(1 - p)^gamma log p of the true class: (B,).

    Args:
        logits: (B, C).
        actions: (B,) class ids.
        gamma: focusing exponent; 0 is cross entropy.
        class_weights: (C,) factor per true class, or None.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 4 (5 with class weights).
    """
    log_p = F.log_softmax(logits, dim=-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    if gamma == 0:
        loss = -log_p
    else:
        miss = 1.0 - log_p.exp()
        if gamma < 1:
            miss = miss.clamp_min(1e-12)  # the slope of x**gamma at 0 is infinite below 1
        loss = -log_p * miss.pow(gamma)
    return loss if class_weights is None else loss * class_weights[actions]


@dataclass(frozen=True)
class MultiTaskLoss:
    """Weighted sum of both tasks' mean losses over a batch."""

    config: LossConfig
    class_weights: Tensor | None = None
    """(C,) for the focal loss, or None."""

    def __call__(
        self,
        logits: Tensor,
        returns: Tensor,
        *,
        action: Tensor,
        target: Tensor,
        return_weights: Tensor | None = None,
    ) -> Tensor:
        """Scalar loss of logits (B, 3) and returns (B,) against action (B,) and target (B,), in the trained unit.

        `return_weights` (B,) weigh the squared errors, by the inverse sampling probability for example.
        """
        focal = focal_loss(logits, action, gamma=self.config.gamma, class_weights=self.class_weights).mean()
        squared = (returns - target).square()
        if return_weights is not None:
            squared = squared * return_weights
        return self.config.action_weight * focal + self.config.return_weight * squared.mean()


def inverse_frequency(counts: Tensor) -> Tensor:
    """Class weights total / (classes present x count), 0 for absent classes: counts (C,) -> (C,) float32."""
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, torch.zeros_like(weights)).to(torch.float32)
