"""An epoch of a stack: the batches that go into its steps, and what it came to for each model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from b3dist.data.schema import ACTIONS
from b3dist.errors import TrainingError
from b3dist.training.fused_data import EpochDraws, StackWindows, StepPlan
from b3dist.training.fused_judge import Judgement
from b3dist.training.fused_state import Hyperparameters
from b3dist.training.packs import StepSlice
from b3dist.training.trainer import EpochRecord


@dataclass(frozen=True)
class Batch:
    """One step's inputs for A models."""

    starts: Tensor
    """(A, B) first row of each window."""
    masks: Tensor
    """(A, B, H)."""
    action: Tensor
    target: Tensor
    focal_weights: Tensor
    squared_weights: Tensor
    size: Tensor
    """(A,) float64, windows that are no padding."""

    @classmethod
    def of_epoch(cls, draws: EpochDraws, windows: StackWindows, *, plan: StepPlan, hyper: Hyperparameters) -> Self:
        """An epoch's batches, each tensor (K, S, ...), in the type of the masks."""
        shape, dtype = draws.index.shape, draws.masks.dtype
        flat = draws.index.view(shape[0], -1)
        names = ("starts", "action", "target", "class_weight", "importance")
        columns = {name: getattr(windows, name).gather(1, flat).view(shape) for name in names}
        focal_weights = hyper.action_weight[:, None, None] * plan.weight * columns["class_weight"]
        squared_weights = hyper.return_weight[:, None, None] * plan.weight * columns["importance"]
        return cls(
            starts=columns["starts"],
            masks=draws.masks,
            action=columns["action"],
            target=columns["target"].to(dtype),
            focal_weights=focal_weights.to(dtype),
            squared_weights=squared_weights.to(dtype),
            size=plan.size,
        )

    def part(self, part: StepSlice) -> "Batch":
        """Of an epoch's batches, each tensor (K, S, B, ...), one step of some models."""
        wide = {
            name: tensor[part.span, part.step, : part.width] for name, tensor in vars(self).items() if name != "size"
        }
        return Batch(**wide, size=self.size[part.span, part.step])


@dataclass(frozen=True, kw_only=True)
class MemberEpoch:
    """What an epoch came to for one model, on its validation part under its current weights."""

    record: EpochRecord
    confusion: list[list[float]]
    """(3, 3) windows by true (rows) and predicted action."""
    squared_error: float
    """Of the predicted returns, summed over windows, fractions squared."""
    is_last: bool
    """Whether its epochs are done or its patience has run out."""


def tabulate_epoch(judged: Judgement, *, train_loss: Tensor, learning_rate: Tensor, over: Tensor) -> Tensor:
    """All that is told of K models after an epoch as one table on the device, a row each; see `tell_epoch`."""
    columns = [train_loss, judged.loss, judged.macro_f1, judged.mae, learning_rate, judged.squared_error, over]
    numbers = torch.stack([column.to(torch.float64) for column in columns], dim=1)
    return torch.cat([numbers, judged.confusion.flatten(1)], dim=1)


def tell_epoch(ticker: str, epoch: int, row: Sequence[float]) -> MemberEpoch | TrainingError:
    """What a row of the table says; an error if a loss is no finite number."""
    training, validation, f1, mae, rate, squared_error, over, *cells = row
    if not (math.isfinite(training) and math.isfinite(validation)):
        return TrainingError(
            f"{ticker} diverged at epoch {epoch}: training loss {training}, validation loss {validation}",
            hint="lower training.learning_rate or the loss weights",
        )
    record = EpochRecord(
        epoch=epoch, train_loss=training, val_loss=validation, val_macro_f1=f1, val_mae=mae, learning_rate=rate
    )
    confusion = [cells[first : first + len(ACTIONS)] for first in range(0, len(cells), len(ACTIONS))]
    return MemberEpoch(record=record, confusion=confusion, squared_error=squared_error, is_last=bool(over))
