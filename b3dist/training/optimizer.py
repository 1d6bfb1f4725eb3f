"""Adam, gradient clipping and the plateau schedule for weights that live in one flat buffer.

The formulas are torch.optim's and are tested against it. Written out because importing its machinery costs every
worker seconds at its first step, and its bookkeeping four times the arithmetic of a step of this size (docs/LOG.md).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from b3dist.config import TrainingConfig

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
PLATEAU_THRESHOLD = 1e-4
"""Relative improvement that counts, as ReduceLROnPlateau's default."""


class FlatAdam:
    """Adam with an L2 term in the gradient, on one flat tensor.

    Args:
        weights: (n,) updated in place.
        gradient: (n,) read, and overwritten, by each step.
        config: learning rate (changed later through `learning_rate`), weight decay, clip norm.
    """

    def __init__(self, weights: Tensor, gradient: Tensor, config: TrainingConfig) -> None:
        self.weights = weights
        self.gradient = gradient
        self.learning_rate = config.learning_rate
        self._weight_decay = config.weight_decay
        self._clip_norm = config.clip_norm
        self._mean = torch.zeros_like(weights)
        self._square = torch.zeros_like(weights)
        self._steps = 0

    def state(self) -> dict[str, Any]:
        """A copy of what a later process needs to go on exactly as this one would."""
        return {
            "mean": self._mean.cpu().clone(),
            "square": self._square.cpu().clone(),
            "steps": self._steps,
            "learning_rate": self.learning_rate,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        self._steps = state["steps"]
        self.learning_rate = state["learning_rate"]

    @torch.no_grad()
    def step(self) -> None:
        """Clip the gradient to the largest norm, add the L2 term, update the weights."""
        gradient = self.gradient
        norm = torch.linalg.vector_norm(gradient)
        gradient.mul_((self._clip_norm / (norm + 1e-6)).clamp_(max=1.0))
        gradient.add_(self.weights, alpha=self._weight_decay)
        self._steps += 1
        self._mean.lerp_(gradient, 1.0 - BETA_1)
        self._square.mul_(BETA_2).addcmul_(gradient, gradient, value=1.0 - BETA_2)
        scale = math.sqrt(1.0 - BETA_2**self._steps)
        denominator = self._square.sqrt().div_(scale).add_(EPSILON)
        self.weights.addcdiv_(self._mean, denominator, value=-self.learning_rate / (1.0 - BETA_1**self._steps))


@dataclass
class PlateauSchedule:
    """The learning rate, multiplied by a factor once the loss has not improved for more than `patience` epochs."""

    config: TrainingConfig
    learning_rate: float = field(init=False)
    _best: float = field(default=math.inf, init=False)
    _waited: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.learning_rate = self.config.learning_rate

    def update(self, loss: float) -> float:
        """The learning rate after an epoch of this validation loss."""
        if loss < self._best * (1.0 - PLATEAU_THRESHOLD):
            self._best, self._waited = loss, 0
        else:
            self._waited += 1
        if self._waited > self.config.scheduler_patience:
            lowered = max(self.learning_rate * self.config.scheduler_factor, self.config.min_learning_rate)
            if self.learning_rate - lowered > EPSILON:
                self.learning_rate = lowered
            self._waited = 0
        return self.learning_rate


@dataclass
class EarlyStopping:
    """Patience of the card: an epoch counts as better only if it improves the best loss by more than min_delta."""

    config: TrainingConfig
    _best: float = field(default=math.inf, init=False)
    _waited: int = field(default=0, init=False)

    def should_stop(self, loss: float) -> bool:
        """Whether `patience` epochs have passed without one that counts as better."""
        if loss < self._best - self.config.min_delta:
            self._best, self._waited = loss, 0
        else:
            self._waited += 1
        return self._waited >= self.config.patience
