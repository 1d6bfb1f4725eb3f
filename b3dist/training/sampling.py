"""One generator per asset: everything random about an asset's training is drawn from it, in one order.

The order is: initial weights; then per epoch the window indices and the dropout masks. No draw depends on how assets
are packed, ordered or spread over workers.
"""

import hashlib

import torch
from torch import Tensor

from b3dist.config import Sampler
from b3dist.model.losses import inverse_frequency


def asset_generator(seed: int, ticker: str) -> torch.Generator:
    """Generator of one asset, from the run's seed and the ticker."""
    digest = hashlib.sha256(f"{seed}:{ticker}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def sampling_weights(action: Tensor, sampler: Sampler, num_classes: int = 3) -> Tensor:
    """Relative probability of drawing each window: (n,) float64; by inverse class frequency when balanced."""
    if sampler == "shuffled":
        return torch.ones(len(action), dtype=torch.float64)
    return inverse_frequency(torch.bincount(action, minlength=num_classes)).to(torch.float64)[action]


def draw_epoch(weights: Tensor, sampler: Sampler, generator: torch.Generator) -> Tensor:
    """Window indices of one epoch, (n,): with replacement by weight when balanced, a permutation when shuffled."""
    if sampler == "shuffled":
        return torch.randperm(len(weights), generator=generator)
    return torch.multinomial(weights, len(weights), replacement=True, generator=generator)


def importance_weights(weights: Tensor) -> Tensor:
    """Inverse sampling probability relative to uniform, (n,) float32: its expectation under the sampler is 1.

    A mean over drawn windows weighted by it estimates the plain mean over all windows.
    """
    return (weights.mean() / weights).to(torch.float32)
