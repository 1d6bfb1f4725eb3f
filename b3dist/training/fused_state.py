"""What a stack of K models carries through training, each tensor with a leading K: nothing here loops over models.

The formulas are those of `b3dist.training.optimizer`, with numbers per model.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from b3dist.config import Config
from b3dist.training.optimizer import BETA_1, BETA_2, EPSILON, PLATEAU_THRESHOLD

_ALIGNMENT = 16
"""Elements that a tensor's place in the flat buffer is rounded up to: GPU matrix kernels read 16 bytes at a time where
every slot's tensor begins at a multiple of that."""


def keep_slots[T](state: T, kept: Tensor) -> T:
    """A copy of a dataclass of tensors (K, ...) with the slots `kept` (K',) only."""
    tensors: dict[str, Any] = {
        item.name: getattr(state, item.name).index_select(0, kept)
        for item in dataclasses.fields(state)  # type: ignore[arg-type]
        if isinstance(getattr(state, item.name), Tensor)
    }
    return dataclasses.replace(state, **tensors)  # type: ignore[type-var]


class Layout:
    """Where each of a network's tensors lies in a flat row of weights, (P,)."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.places: dict[str, tuple[int, torch.Size]] = {}
        self.width = 0
        for name, tensor in state.items():
            self.places[name] = (self.width, tensor.shape)
            self.width += math.ceil(tensor.numel() / _ALIGNMENT) * _ALIGNMENT

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors of flat (K, P), each (K, *shape), sharing its memory."""
        return {
            name: flat[:, offset : offset + shape.numel()].view(flat.shape[0], *shape)
            for name, (offset, shape) in self.places.items()
        }

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors (K, *shape) in the layout's order as one (K, P); padding is 0."""
        flat = tensors[0].new_zeros(tensors[0].shape[0], self.width)
        for (offset, shape), tensor in zip(self.places.values(), tensors, strict=True):
            flat[:, offset : offset + shape.numel()] = tensor.reshape(flat.shape[0], -1)
        return flat


@dataclass(frozen=True)
class Hyperparameters:
    """Each model's own numbers, (K,) float64."""

    gamma: Tensor
    action_weight: Tensor
    return_weight: Tensor
    epochs: Tensor
    learning_rate: Tensor
    weight_decay: Tensor
    clip_norm: Tensor
    patience: Tensor
    min_delta: Tensor
    scheduler_factor: Tensor
    scheduler_patience: Tensor
    min_learning_rate: Tensor

    @classmethod
    def of(cls, configs: Sequence[Config], device: torch.device) -> "Hyperparameters":
        """From each model's configuration."""
        sections = [{**vars(config.loss), **vars(config.training)} for config in configs]
        return cls(
            **{
                item.name: torch.tensor([section[item.name] for section in sections], dtype=torch.float64).to(device)
                for item in dataclasses.fields(cls)
            }
        )


@dataclass(frozen=True)
class BiasCorrections:
    """Adam's corrections after t steps, (T,) float64; a table, so that every slot reads the same number."""

    mean: Tensor
    """1 / (1 - beta_1^t)."""
    square: Tensor
    """sqrt(1 - beta_2^t)."""

    @classmethod
    def up_to(cls, steps: int, device: torch.device) -> "BiasCorrections":
        """For 1 to `steps` steps; entry 0 is not used."""
        counts = range(1, steps + 1)
        mean = [1.0, *(1.0 / (1.0 - BETA_1**count) for count in counts)]
        square = [1.0, *(math.sqrt(1.0 - BETA_2**count) for count in counts)]
        return cls(
            torch.tensor(mean, dtype=torch.float64, device=device),
            torch.tensor(square, dtype=torch.float64, device=device),
        )


@dataclass(frozen=True)
class StackAdam:
    """Gradient clipping per model, and Adam with an L2 term."""

    weights: Tensor
    """(K, P), updated in place."""
    mean: Tensor
    square: Tensor
    steps: Tensor
    """(K,) int64."""
    learning_rate: Tensor
    """(K,) float64, changed by the plateau schedule."""

    @classmethod
    def of(cls, weights: Tensor, hyper: Hyperparameters) -> "StackAdam":
        """Before the first step."""
        zeros = torch.zeros(len(weights), dtype=torch.int64, device=weights.device)
        return cls(weights, torch.zeros_like(weights), torch.zeros_like(weights), zeros, hyper.learning_rate.clone())

    @torch.no_grad()
    def step(self, gradient: Tensor, span: slice, hyper: Hyperparameters, corrections: BiasCorrections) -> None:
        """Update the A models of `span` by their gradients (A, P), which are overwritten."""
        weights, mean, square = self.weights[span], self.mean[span], self.square[span]
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        clip_norm = hyper.clip_norm[span, None].to(gradient.dtype)
        gradient.mul_((clip_norm / (norm + 1e-6)).clamp_(max=1.0))
        gradient.addcmul_(weights, hyper.weight_decay[span, None].to(gradient.dtype))
        steps = self.steps[span].add_(1)
        mean.lerp_(gradient, 1.0 - BETA_1)
        square.mul_(BETA_2).addcmul_(gradient, gradient, value=1.0 - BETA_2)
        scale = corrections.square.index_select(0, steps)[:, None].to(gradient.dtype)
        size = (self.learning_rate[span] * corrections.mean.index_select(0, steps))[:, None].to(gradient.dtype)
        denominator = square.sqrt().div_(scale).add_(EPSILON)
        weights.addcmul_(mean.div(denominator), size, value=-1.0)


@dataclass(frozen=True)
class Watch:
    """What each model's validation losses have been so far: best weights, plateau schedule, early stopping."""

    best_loss: Tensor
    """(K,) float64."""
    best_epoch: Tensor
    best_weights: Tensor
    """(K, P)."""
    plateau_best: Tensor
    plateau_waited: Tensor
    patience_best: Tensor
    patience_waited: Tensor

    @classmethod
    def of(cls, weights: Tensor) -> "Watch":
        """Before the first epoch."""

        def full(value: float) -> Tensor:
            return torch.full((len(weights),), value, dtype=torch.float64, device=weights.device)

        return cls(full(math.inf), full(0), weights.clone(), full(math.inf), full(0), full(math.inf), full(0))

    @torch.no_grad()
    def update(self, loss: Tensor, epoch: int, adam: StackAdam, hyper: Hyperparameters) -> Tensor:
        """Take in an epoch's validation losses (K,) float64; lowers learning rates.

        Returns:
            Which models have run out of patience, (K,) bool.
        """
        better = loss < self.best_loss
        self.best_loss.copy_(torch.where(better, loss, self.best_loss))
        self.best_epoch.masked_fill_(better, epoch)
        self.best_weights.copy_(torch.where(better[:, None], adam.weights, self.best_weights))
        self._lower_learning_rates(loss, adam.learning_rate, hyper)
        improved = loss < self.patience_best - hyper.min_delta
        _count_waiting(improved, loss, self.patience_best, self.patience_waited)
        return self.patience_waited >= hyper.patience

    def _lower_learning_rates(self, loss: Tensor, learning_rate: Tensor, hyper: Hyperparameters) -> None:
        improved = loss < self.plateau_best * (1.0 - PLATEAU_THRESHOLD)
        _count_waiting(improved, loss, self.plateau_best, self.plateau_waited)
        due = self.plateau_waited > hyper.scheduler_patience
        lowered = torch.maximum(learning_rate * hyper.scheduler_factor, hyper.min_learning_rate)
        learning_rate.copy_(torch.where(due & (learning_rate - lowered > EPSILON), lowered, learning_rate))
        self.plateau_waited.masked_fill_(due, 0)


def _count_waiting(improved: Tensor, loss: Tensor, best: Tensor, waited: Tensor) -> None:
    best.copy_(torch.where(improved, loss, best))
    waited.add_(1).masked_fill_(improved, 0)
