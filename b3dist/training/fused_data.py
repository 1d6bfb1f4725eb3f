"""The data of a stack of K assets on its device: rows once, windows as the index of their first row, padded.

Padding is a valid window with weight 0, so that it costs arithmetic but changes nothing. Each asset keeps its own
generator, from which windows and masks are drawn exactly as the single engine draws them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from b3dist.config import Config
from b3dist.data.schema import ACTIONS
from b3dist.data.windows import AssetData, Split
from b3dist.errors import ConfigError
from b3dist.model.losses import inverse_frequency
from b3dist.model.lstm_mtl import LstmMtl, discourage_absent_actions, draw_dropout_masks
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.sampling import asset_generator, draw_epoch, importance_weights, sampling_weights


@dataclass(frozen=True, kw_only=True)
class StackMember:
    """One model to train: an asset's data under a configuration. The same asset may be in a stack several times."""

    data: AssetData
    config: Config
    start: Mapping[str, Tensor] | None = None
    """Weights to begin with instead of drawn ones; they are epoch 0, and kept if no epoch is better."""


def shape_of(member: StackMember) -> dict[str, int | str]:
    """What the models of one stack must agree in, by name."""
    config = member.config
    return {
        "data.lookback": config.data.lookback,
        "number of features": member.data.features.shape[1],
        "model.hidden_size": config.model.hidden_size,
        "training.batch_size": config.training.batch_size,
        "training.precision": config.training.precision,
    }


def by_shape[Key](members: Mapping[Key, StackMember]) -> list[dict[Key, StackMember]]:
    """The members that can share a stack, group by group, in their order."""
    groups: dict[tuple[int | str, ...], dict[Key, StackMember]] = {}
    for key, member in members.items():
        groups.setdefault(tuple(shape_of(member).values()), {})[key] = member
    return list(groups.values())


def one_shape(members: Sequence[StackMember]) -> Config:
    """The first member's configuration.

    Raises:
        ConfigError: another member's has a shape or precision of its own, which a stack cannot hold.
    """
    expected = shape_of(members[0])
    for member in members:
        for name, value in shape_of(member).items():
            if value != expected[name]:
                raise ConfigError(
                    f"{member.data.ticker} has {name} {value}, {members[0].data.ticker} has {expected[name]}:"
                    " models of one stack must agree in it",
                    hint="train them in stacks of their own",
                )
    return members[0].config


class Randomness:
    """One model's random draws, in the single engine's order: initial weights, then per epoch windows and masks."""

    def __init__(self, member: StackMember) -> None:
        self._config = member.config
        self._generator = asset_generator(member.config.seed, member.data.ticker)
        action = torch.from_numpy(member.data.train.action)
        self.counts = torch.bincount(action, minlength=len(ACTIONS))
        self.sampling = sampling_weights(action, member.config.training.sampler)
        model = LstmMtl(member.data.features.shape[1], member.config.model, generator=self._generator)
        discourage_absent_actions(model, self.counts)
        if member.start is not None:
            model.load_state_dict(member.start)
        self.initial_state = {name: tensor.detach() for name, tensor in model.state_dict().items()}

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next epoch's window indices (n,) and dropout masks (n, H)."""
        drawn = draw_epoch(self.sampling, self._config.training.sampler, self._generator)
        return drawn, draw_dropout_masks(len(drawn), self._config.model, self._generator)


@dataclass(frozen=True)
class StackWindows:
    """One part's windows of every model, padded to the longest; see `Split`."""

    starts: Tensor
    """(K, N) int64, first row of each window."""
    action: Tensor
    target: Tensor
    """(K, N) return in each model's trained unit."""
    future_return: Tensor
    """(K, N) float64, fraction."""
    share: Tensor
    """(K, N) float64: 1 / windows of the model, 0 for padding."""
    class_weight: Tensor
    """(K, N) factor of each window's focal loss."""
    importance: Tensor
    """(K, N) factor of each window's squared error where windows are resampled."""

    @classmethod
    def of(
        cls,
        members: Sequence[StackMember],
        part: str,
        randomness: Sequence[Randomness],
        targets: Sequence[ReturnTarget],
    ) -> "StackWindows":
        """The part called train or val of every model, float64 on the CPU."""
        splits = [member.data.part(part) for member in members]
        columns = [
            _columns(split, member, draws, target, resampled=part == "train")
            for split, member, draws, target in zip(splits, members, randomness, targets, strict=True)
        ]
        longest = max(len(split) for split in splits)
        return cls(
            *(torch.stack([_pad(model[item.name], longest) for model in columns]) for item in dataclasses.fields(cls))
        )

    def to(self, device: torch.device) -> "StackWindows":
        """On the device."""
        return StackWindows(*(getattr(self, item.name).to(device) for item in dataclasses.fields(self)))


def _columns(
    split: Split, member: StackMember, draws: Randomness, target: ReturnTarget, *, resampled: bool
) -> dict[str, Tensor]:
    size, action, loss = len(split), torch.from_numpy(split.action), member.config.loss
    ones = torch.ones(size, dtype=torch.float64)
    uniform = resampled and loss.return_weighting == "uniform"
    return {
        "starts": torch.from_numpy(split.ends - member.config.data.lookback + 1),
        "action": action,
        "target": torch.from_numpy(target.encode(split.future_return).astype(np.float32)).to(torch.float64),
        "future_return": torch.from_numpy(split.future_return),
        "share": ones / size,
        "class_weight": inverse_frequency(draws.counts).to(torch.float64)[action] if loss.class_weights else ones,
        "importance": importance_weights(draws.sampling).to(torch.float64) if uniform else ones,
    }


def _pad(values: Tensor, length: int) -> Tensor:
    """Values (n,) followed by zeros, or by the first window where an index is meant."""
    filler = values[:1] if not values.is_floating_point() else values.new_zeros(1)
    return torch.cat([values, filler.expand(length - len(values))])


@dataclass(frozen=True)
class StackRows:
    """Rows of every model, padded with zeros to the longest."""

    values: Tensor
    """(K, R, F) z-scores, up to the last row that a training or validation window sees."""

    @classmethod
    def of(cls, members: Sequence[StackMember], device: torch.device, dtype: torch.dtype) -> "StackRows":
        """On the device."""
        used = [int(max(member.data.train.ends[-1], member.data.val.ends[-1])) + 1 for member in members]
        rows = torch.zeros(len(members), max(used), members[0].data.features.shape[1], dtype=dtype)
        for slot, (member, size) in enumerate(zip(members, used, strict=True)):
            rows[slot, :size] = torch.from_numpy(member.data.features[:size])
        return cls(rows.to(device))


@dataclass(frozen=True)
class ReturnUnits:
    """What turns each model's returns into fractions, (K,) float64; see `ReturnTarget`."""

    scale: Tensor
    mean: Tensor

    @classmethod
    def of(cls, targets: Sequence[ReturnTarget], device: torch.device) -> "ReturnUnits":
        """On the device."""
        scale = [target.scale for target in targets]
        mean = [target.mean for target in targets]
        return cls(*(torch.tensor(values, dtype=torch.float64).to(device) for values in (scale, mean)))


@dataclass(frozen=True)
class StepPlan:
    """How an epoch's draws of every model fall into steps of B windows; the same in every epoch."""

    num_windows: Tensor
    """(K,) int64, training windows."""
    weight: Tensor
    """(K, S, B) float64: 1 / windows in the step, 0 for padding."""
    size: Tensor
    """(K, S) float64, windows in the step."""

    @classmethod
    def of(cls, sizes: Sequence[int], batch_size: int, device: torch.device) -> "StepPlan":
        """For models with so many training windows each."""
        num_windows = torch.tensor(sizes)
        num_steps = -(-max(sizes) // batch_size)
        left = num_windows[:, None] - torch.arange(num_steps) * batch_size
        size = left.clamp(0, batch_size).to(torch.float64)
        valid = torch.arange(batch_size) < size[:, :, None]
        weight = valid / size.clamp(min=1)[:, :, None]
        return cls(num_windows.to(device), weight.to(device), size.to(device))


@dataclass(frozen=True)
class EpochDraws:
    """One epoch's windows and masks of every model."""

    index: Tensor
    """(K, S, B) int64 numbers of training windows."""
    masks: Tensor
    """(K, S, B, H), 0 or 1 / (1 - rate)."""


class Draws:
    """Draws epochs for the models still in the stack, the next one while the current one is trained.

    Args:
        randomness: of every model.
        pool: draws ahead in its threads (a generator is only ever used by one at a time); None draws when asked.
    """

    def __init__(self, randomness: Sequence[Randomness], pool: Executor | None) -> None:
        self._randomness = list(randomness)
        self._pool = pool
        self._ahead: list[Future[tuple[Tensor, Tensor]]] = []
        self._draw_ahead()

    def next(self, plan: StepPlan, device: torch.device, dtype: torch.dtype) -> EpochDraws:
        """The next epoch, in the plan's steps, on the device."""
        drawn = [ahead.result() for ahead in self._ahead] or [source.draw() for source in self._randomness]
        num_models, num_steps, batch_size = plan.weight.shape
        pinned = device.type == "cuda"
        size = num_steps * batch_size
        index = torch.zeros(num_models, size, dtype=torch.int64, pin_memory=pinned)
        masks = torch.zeros(num_models, size, drawn[0][1].shape[1], pin_memory=pinned)
        for slot, (windows, mask) in enumerate(drawn):
            index[slot, : len(windows)] = windows
            masks[slot, : len(windows)] = mask
        self._draw_ahead()
        return EpochDraws(
            index.to(device, non_blocking=True).view(num_models, num_steps, batch_size),
            masks.to(device, non_blocking=True).to(dtype).view(num_models, num_steps, batch_size, -1),
        )

    def keep(self, kept: Sequence[int]) -> None:
        """Forget the other models."""
        self._randomness = [self._randomness[slot] for slot in kept]
        self._ahead = [self._ahead[slot] for slot in kept] if self._ahead else []

    def _draw_ahead(self) -> None:
        if self._pool is not None:
            self._ahead = [self._pool.submit(source.draw) for source in self._randomness]
