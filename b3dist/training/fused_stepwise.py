"""Models of one shape trained an epoch at a time, as stacks that fit into memory: what a sweep's trials run on."""

import functools
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch

from b3dist.training.fused import Execution, StackFitting
from b3dist.training.fused_data import StackMember
from b3dist.training.fused_epoch import MemberEpoch
from b3dist.training.packs import fit_halving, split_evenly


@dataclass
class _Stack[Key: Hashable]:
    """Models that advance together."""

    numbers: dict[Key, int]
    """Those still in training, and what they are called in the fitting."""
    fitting: StackFitting | None = None
    """None: not begun, or its memory was needed to begin again in halves."""

    def leave(self, models: Collection[Key]) -> None:
        gone = {number for key, number in self.numbers.items() if key in models}
        self.numbers = {key: number for key, number in self.numbers.items() if key not in models}
        if gone and self.fitting is not None:
            self.fitting.leave(gone)


class EpochStacks[Key: Hashable]:
    """Trains models side by side, all at the same epoch; each gets what it would get alone.

    Where the memory does not suffice a stack is halved, also after its first epoch: both halves are then trained again
    up to where it was, which takes time but changes no number.

    Args:
        members: of one shape.
        device: cpu or cuda.
        most: models per stack to begin with.
        execution: how the arithmetic is carried out.
    """

    def __init__(
        self, members: Mapping[Key, StackMember], *, device: str, most: int, execution: Execution | None = None
    ) -> None:
        if device == "cpu":
            torch.set_num_threads(1)
        self._members = dict(members)
        self._device, self._execution = torch.device(device), execution
        self._stacks = [_Stack(dict.fromkeys(keys, -1)) for keys in split_evenly(list(members), most)]
        self._epoch = 0

    def advance(self) -> dict[Key, MemberEpoch | Exception]:
        """One more epoch of every model still in training; those that end with it, or diverge, leave.

        An error that is no model's own is told of each model in the stack that raised it.
        """
        self._epoch += 1
        stacks, self._stacks = self._stacks, []
        told: dict[Key, MemberEpoch | Exception] = {}
        for stack in stacks:
            keys = list(stack.numbers)
            try:
                told |= zip(keys, fit_halving(keys, functools.partial(self._train, stack))[0], strict=True)
            except Exception as error:  # noqa: BLE001  the models of other stacks go on
                told |= dict.fromkeys(keys, error)
        self.leave({key for key, one in told.items() if isinstance(one, Exception) or one.is_last})
        return told

    def leave(self, models: Collection[Key]) -> None:
        """Train these models no more."""
        for stack in self._stacks:
            stack.leave(models)
        self._stacks = [stack for stack in self._stacks if stack.numbers]

    def _train(self, stack: _Stack[Key], keys: Sequence[Key]) -> list[MemberEpoch | Exception]:
        """This epoch of all of a stack's models, or of a half of them, which go on as a stack of their own."""
        fitting, stack.fitting = stack.fitting, None  # held by nobody else if the memory does not suffice
        numbers = stack.numbers
        if fitting is None:
            members = [self._members[key] for key in keys]
            fitting = StackFitting(members, device=self._device, dtype=torch.float32, execution=self._execution)
            numbers = {key: number for number, key in enumerate(keys)}
            for epoch in range(1, self._epoch):
                fitting.advance(epoch)
        told = fitting.advance(self._epoch)
        self._stacks.append(_Stack(numbers, fitting))
        return [told[numbers[key]] for key in keys]
