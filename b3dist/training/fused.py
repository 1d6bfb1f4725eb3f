"""Fit a stack of assets as one computation: every tensor has a leading K, and a training step loops over no model.

Each model gets what `b3dist.training.trainer` would give it alone: its own weights, rows, draws, loss weights, Adam,
clipping, schedule, patience and best epoch. Models are ordered by their number of windows, so that those with as many
windows in a step lie side by side: a step works on slices of the stack, and little is computed for nothing. Models that
stopped leave the stack once they are more than a tenth of it.
"""

import math
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from b3dist.config import Config
from b3dist.errors import TrainingError
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.model.stacked import LSTM_NAMES, apply_heads, stack_states
from b3dist.model.stacked_losses import loss_terms
from b3dist.model.stacked_lstm import PLAIN, PLAIN_BF16, Kernels, last_hidden
from b3dist.training.fused_data import (
    Draws,
    Randomness,
    ReturnUnits,
    StackMember,
    StackRows,
    StackWindows,
    StepPlan,
    one_shape,
)
from b3dist.training.fused_epoch import Batch, MemberEpoch, tabulate_epoch, tell_epoch
from b3dist.training.fused_graph import GraphedSteps
from b3dist.training.fused_judge import Judgement, judge_windows
from b3dist.training.fused_state import BiasCorrections, Hyperparameters, Layout, StackAdam, Watch, keep_slots
from b3dist.training.packs import plan_slices
from b3dist.training.precision import fix_order_of_sums, matmul_precision, require_supported
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.trainer import EpochRecord, Fit

COMPACT_AT = 0.1
"""Share of stopped models beyond which the stack is made smaller."""


@dataclass(frozen=True)
class Execution:
    """How a stack's arithmetic is carried out; within float error it changes no number."""

    pool: Executor | None = None
    """Threads that draw the next epoch's windows and masks meanwhile."""
    kernels: Kernels | None = None
    """What runs the recurrence; None: plain PyTorch in the configured precision."""
    graphs: bool = False
    """Replay each step from a CUDA graph."""

    @classmethod
    def on(cls, device: str) -> "Execution":
        """What a worker uses; on a CPU it has one core: nothing to draw on meanwhile."""
        return cls(pool=ThreadPoolExecutor(len(os.sched_getaffinity(0))) if device != "cpu" else None)


def fit_stack(
    members: Sequence[StackMember],
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_epoch: Callable[[int, EpochRecord], None] | None = None,
    execution: Execution | None = None,
) -> list[Fit | TrainingError]:
    """Train models of one shape as a stack; a model that diverges is an error in its place and harms no other.

    Args:
        members: assets with their configurations; hidden size, lookback, batch size and features must agree.
        device: where.
        dtype: of weights and arithmetic.
        on_epoch: called with a member's number and its new line of history.
        execution: how the arithmetic is carried out.

    Returns:
        In the order of `members`; fitted models are on the CPU.

    Raises:
        torch.OutOfMemoryError: the stack does not fit on the device.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    return StackFitting(members, device=torch.device(device), dtype=dtype, execution=execution).run(on_epoch)


class StackFitting:
    """State of a stack's training; `order` names the member in each slot."""

    def __init__(
        self,
        members: Sequence[StackMember],
        *,
        device: torch.device,
        dtype: torch.dtype,
        execution: Execution | None = None,
    ) -> None:
        execution = execution or Execution()
        self.order = sorted(range(len(members)), key=lambda number: -len(members[number].data.train))
        members = [members[number] for number in self.order]
        self.device, self.dtype = device, dtype
        self.precision = one_shape(members).training.precision
        require_supported(self.precision, device)
        fix_order_of_sums(device)
        self.kernels = execution.kernels or (PLAIN_BF16 if self.precision == "bf16" else PLAIN)
        self.graphs = GraphedSteps() if execution.graphs else None
        self.members = members
        config: Config = members[0].config
        self.lookback, self.batch_size = config.data.lookback, config.training.batch_size
        randomness = [Randomness(member) for member in members]
        self.return_targets = [
            ReturnTarget.fit(member.data.train.future_return, member.config.loss.return_unit) for member in members
        ]
        self.units = ReturnUnits.of(self.return_targets, device)
        self.rows = StackRows.of(members, device, dtype)
        self.train, self.val = (
            StackWindows.of(members, part, randomness, self.return_targets).to(device) for part in ("train", "val")
        )
        self.hyper = Hyperparameters.of([member.config for member in members], device)
        self.sizes = [len(member.data.train) for member in members]
        self.plan = StepPlan.of(self.sizes, self.batch_size, device)
        self.slices = plan_slices(self.sizes, self.batch_size)
        states = stack_states([source.initial_state for source in randomness])
        self.layout = Layout(randomness[0].initial_state)
        weights = self.layout.flatten([tensor.to(device, dtype) for tensor in states.values()])
        self.adam = StackAdam.of(weights, self.hyper)
        self.watch = Watch.of(weights)
        warm = torch.tensor([member.start is not None for member in members], device=device)
        if any(member.start is not None for member in members):
            self.watch.best_loss.copy_(torch.where(warm, self.judge(self.val, weights).loss, math.inf))
        most_steps = self.plan.weight.shape[1] * max(member.config.training.epochs for member in members)
        self.corrections = BiasCorrections.up_to(most_steps, device)
        self.loss_sum = torch.zeros(len(members), dtype=torch.float64, device=device)
        self.draws = Draws(randomness, execution.pool)
        self.stopped = [False] * len(members)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The current weights, each (K, *shape), in the order of the slots."""
        return self.layout.views(self.adam.weights)

    def run(self, on_epoch: Callable[[int, EpochRecord], None] | None = None) -> list[Fit | TrainingError]:
        """Train until every model has stopped; see `fit_stack`."""
        outcomes: dict[int, Fit | TrainingError] = {}
        history: dict[int, list[EpochRecord]] = {number: [] for number in self.order}
        epoch = 0
        while not all(self.stopped):
            epoch += 1
            ended, diverged = set(), {}
            for number, told in self.advance(epoch).items():
                if isinstance(told, TrainingError):
                    diverged[number] = told
                    continue
                history[number].append(told.record)
                if on_epoch is not None:
                    on_epoch(number, told.record)
                if told.is_last:
                    ended.add(number)
            outcomes |= {**diverged, **self._harvest(ended, history)}
            self.leave({*ended, *diverged})
        return [outcomes[number] for number in sorted(outcomes)]

    def advance(self, epoch: int) -> dict[int, MemberEpoch | TrainingError]:
        """One epoch of every model still in training, and what it came to, by member; the caller lets models leave."""
        learning_rate = self.adam.learning_rate.clone()
        train_loss = self.run_epoch()
        judged = self.judge(self.val, self.adam.weights)
        impatient = self.watch.update(judged.loss, epoch, self.adam, self.hyper)
        over = impatient | (epoch >= self.hyper.epochs)
        table = tabulate_epoch(judged, train_loss=train_loss, learning_rate=learning_rate, over=over)
        return {
            number: tell_epoch(self.members[slot].data.ticker, epoch, row)
            for slot, (number, row) in enumerate(zip(self.order, table.tolist(), strict=True))  # waits for the device
            if not self.stopped[slot]
        }

    def leave(self, members: Collection[int]) -> None:
        """Train these members no more, and make the stack smaller once those that left are many."""
        for slot, number in enumerate(self.order):
            self.stopped[slot] |= number in members
        self._compact()

    def run_epoch(self) -> Tensor:
        """One pass of every model over its draws; mean losses of the steps, (K,) float64, weighted by their windows."""
        draws = self.draws.next(self.plan, self.device, self.dtype)
        epoch = Batch.of_epoch(draws, self.train, plan=self.plan, hyper=self.hyper)
        self.loss_sum.zero_()
        with matmul_precision(self.precision):
            for part in self.slices:
                batch = epoch.part(part)
                if self.graphs is None:
                    self.step(batch, part.span)
                else:
                    self.graphs.run(
                        tuple(vars(batch).values()),
                        part.span,
                        gradient=lambda inputs, span: self.gradient(Batch(*inputs), span),
                        step=lambda inputs, span: self.step(Batch(*inputs), span),
                    )
        return self.loss_sum / self.plan.num_windows

    def step(self, batch: Batch, span: slice) -> None:
        """Forward, backward and update of the A models of `span`."""
        losses, gradient = self.gradient(batch, span)
        self.adam.step(gradient, span, self.hyper, self.corrections)
        self.loss_sum[span] += losses * batch.size

    def gradient(self, batch: Batch, span: slice) -> tuple[Tensor, Tensor]:
        """Losses (A,) and their gradients (A, P)."""
        leaves = {
            name: view.detach().requires_grad_() for name, view in self.layout.views(self.adam.weights[span]).items()
        }
        lstm = tuple(leaves[name] for name in LSTM_NAMES)
        assert len(lstm) == 4
        hidden = last_hidden(self.rows.values[span], batch.starts, lstm, lookback=self.lookback, kernels=self.kernels)
        logits, returns = apply_heads(leaves, hidden * batch.masks)
        terms = loss_terms(
            logits,
            returns,
            action=batch.action,
            target=batch.target,
            gamma=self.hyper.gamma[span].to(self.dtype),
            focal_weights=batch.focal_weights,
            squared_weights=batch.squared_weights,
        )
        losses = terms.sum(dim=1)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
        return losses.detach(), self.layout.flatten(gradients)

    def judge(self, windows: StackWindows, flat: Tensor, *, slots: Tensor | None = None) -> Judgement:
        """Loss and scores of a part under weights flat (K, P), or of some slots of it (K', P)."""
        rows, hyper, units = self.rows, self.hyper, self.units
        if slots is not None:
            windows, rows = keep_slots(windows, slots), keep_slots(rows, slots)
            hyper, units = keep_slots(hyper, slots), keep_slots(units, slots)
        weights = self.layout.views(flat)
        return judge_windows(weights, windows, rows=rows, hyper=hyper, units=units, lookback=self.lookback)

    def _harvest(self, ended: Collection[int], history: dict[int, list[EpochRecord]]) -> dict[int, Fit]:
        """The finished models of the members that ended."""
        places = [slot for slot, number in enumerate(self.order) if number in ended]
        if not places:
            return {}
        slots = torch.tensor(places, device=self.device)
        kept = self.watch.best_weights.index_select(0, slots)
        train_loss = self.judge(self.train, kept, slots=slots).loss.tolist()
        best_loss = self.watch.best_loss.index_select(0, slots).tolist()
        best_epoch = self.watch.best_epoch.index_select(0, slots).tolist()
        weights = {name: tensor.float().cpu() for name, tensor in self.layout.views(kept).items()}
        fits = {}
        for place, slot in enumerate(places):
            model = LstmMtl(self.rows.values.shape[2], self.members[slot].config.model)
            model.load_state_dict({name: tensor[place].clone() for name, tensor in weights.items()})
            fits[self.order[slot]] = Fit(
                model=model,
                return_target=self.return_targets[slot],
                history=history[self.order[slot]],
                best_epoch=int(best_epoch[place]),
                train_loss=train_loss[place],
                val_loss=best_loss[place],
            )
        return fits

    def _compact(self) -> None:
        """Leave out the stopped models once they are many."""
        kept = [slot for slot, stopped in enumerate(self.stopped) if not stopped]
        if not kept or len(kept) > (1 - COMPACT_AT) * len(self.stopped):
            return
        slots = torch.tensor(kept, device=self.device)
        for name in ("rows", "train", "val", "hyper", "plan", "units", "adam", "watch"):
            setattr(self, name, keep_slots(getattr(self, name), slots))
        self.loss_sum = self.loss_sum.index_select(0, slots)
        self.draws.keep(kept)
        for name in ("order", "sizes", "members", "return_targets", "stopped"):
            setattr(self, name, [getattr(self, name)[slot] for slot in kept])
        self.slices = plan_slices(self.sizes, self.batch_size)
        self.graphs = GraphedSteps() if self.graphs is not None else None
