"""The card's loss of K models at once, each with its own exponent and weights; the plain one is in `losses`."""

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_terms(
    logits: Tensor,
    returns: Tensor,
    *,
    action: Tensor,
    target: Tensor,
    gamma: Tensor,
    focal_weights: Tensor,
    squared_weights: Tensor,
) -> Tensor:
    """What each window adds to its model's loss, (K, B): focal loss and squared error under the given weights.

    Args:
        logits: (K, B, 3).
        returns: (K, B) in each model's trained unit.
        action: (K, B) class ids.
        target: (K, B) in each model's trained unit.
        gamma: (K,) focusing exponents; 0 is cross entropy.
        focal_weights: (K, B) weight of each window's focal loss: task weight / windows in the batch, 0 for padding.
        squared_weights: (K, B) the same for the squared error.
    """
    log_p = F.log_softmax(logits, dim=2).gather(2, action.unsqueeze(2)).squeeze(2)
    exponent = gamma[:, None]
    # Below 1 the slope of x**gamma at 0 is infinite; at 0 the power's own derivative would be 0 x infinity.
    floor = (exponent < 1).to(log_p.dtype) * 1e-12
    miss = torch.maximum(1.0 - log_p.exp(), floor)
    focal = -log_p * miss.pow(exponent)
    return focal_weights * focal + squared_weights * (returns - target).square()
