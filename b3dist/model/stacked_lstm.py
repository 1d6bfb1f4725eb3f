"""The LSTM of a stack of K models with its backward pass written out, for training.

`b3dist.model.stacked.stacked_forward` is the same arithmetic under autograd: the reference it is tested against.
Written out, a step's activations are kept once, in place, and each weight's gradient is one batched product over all
steps instead of one per step.

    rows (K, R, F) --project--> (K, R, 4H) --gather by window--> gates (K, L, B, 4H) --recur--> last hidden (K, B, H)

Nothing crosses the first dimension: a slot's numbers do not depend on what the other slots hold.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Recurrence = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(gates (K, L, B, 4H): input parts, weight_hh (K, 4H, H)) -> cells, hiddens (K, L, B, H); gates become activations."""
RecurrenceBackward = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""(gates activations, weight_hh, cells, gradient of the last hidden (K, B, H)): gates become their own gradients."""


def project_rows(rows: Tensor, weight_ih: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
    """Every row's share of the gates, (K, R, 4H), once and not once per window: rows (K, R, F) z-scores."""
    return torch.baddbmm((bias_ih + bias_hh)[:, None], rows, weight_ih.transpose(1, 2))


def window_rows(starts: Tensor, lookback: int) -> Tensor:
    """Rows of windows beginning at starts (K, B), oldest first: (K, L, B)."""
    return starts[:, None] + torch.arange(lookback, device=starts.device)[:, None]


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """The rows that each slot's index names: rows (K, R, C), index (K, ...) -> (K, ..., C)."""
    num_models, num_rows, width = rows.shape
    first = torch.arange(num_models, device=rows.device) * num_rows
    flat = index + first.view(-1, *[1] * (index.dim() - 1))
    return rows.reshape(num_models * num_rows, width).index_select(0, flat.reshape(-1)).view(*index.shape, width)


def recur(gates: Tensor, weight_hh: Tensor, *, factors: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """All steps of the recurrence in plain PyTorch, see `Recurrence`; `factors`: type to multiply in, if another."""
    num_models, lookback, num_windows, width = gates.shape
    size = width // 4
    cells = gates.new_empty(num_models, lookback, num_windows, size)
    hiddens = torch.empty_like(cells)
    recurrent = weight_hh.transpose(1, 2)
    if factors is not None:
        recurrent = recurrent.to(factors)
    for step in range(lookback):
        gate, cell, hidden = gates[:, step], cells[:, step], hiddens[:, step]
        if step and factors is None:
            gate.baddbmm_(hiddens[:, step - 1], recurrent)
        elif step:
            gate.add_(torch.bmm(hiddens[:, step - 1].to(factors), recurrent))
        write, forget, value, output = torch.split(gate, size, dim=2)  # PyTorch's order: i, f, g, o
        gate[:, :, : 2 * size].sigmoid_()
        value.tanh_()
        output.sigmoid_()
        torch.mul(write, value, out=cell)
        if step:
            cell.addcmul_(forget, cells[:, step - 1])
        torch.tanh(cell, out=hidden)
        hidden.mul_(output)
    return cells, hiddens


def recur_backward(
    gates: Tensor, weight_hh: Tensor, cells: Tensor, last: Tensor, *, factors: torch.dtype | None = None
) -> None:
    """Back through all steps in plain PyTorch; see `RecurrenceBackward`."""
    size = cells.shape[3]
    to_hidden, to_cell = last, torch.zeros_like(last)
    for step in reversed(range(gates.shape[1])):
        gate, cell = gates[:, step], cells[:, step].tanh()
        write, forget, value, output = torch.split(gate, size, dim=2)
        to_cell = to_cell + torch.ops.aten.tanh_backward(to_hidden * output, cell)
        carried = to_cell * forget
        grad_output = torch.ops.aten.sigmoid_backward(to_hidden * cell, output)
        grad_write = torch.ops.aten.sigmoid_backward(to_cell * value, write)
        grad_value = torch.ops.aten.tanh_backward(to_cell * write, value)
        if step:
            forget.copy_(torch.ops.aten.sigmoid_backward(to_cell * cells[:, step - 1], forget))
        else:
            forget.zero_()  # the first cell remembers nothing
        write.copy_(grad_write)
        value.copy_(grad_value)
        output.copy_(grad_output)
        if step:
            to_hidden, to_cell = product(gate, weight_hh, factors), carried


def product(left: Tensor, right: Tensor, factors: torch.dtype | None) -> Tensor:
    """Batched matrix product, multiplied in another type if one is given, in the type of `left`."""
    if factors is None:
        return torch.bmm(left, right)
    return torch.bmm(left.to(factors), right.to(factors)).to(left.dtype)


@dataclass(frozen=True)
class Kernels:
    """What runs the recurrence, and the type of the factors of every product on the way back."""

    forward: Recurrence
    backward: RecurrenceBackward
    factors: torch.dtype | None = None


PLAIN = Kernels(recur, recur_backward)
PLAIN_BF16 = Kernels(
    functools.partial(recur, factors=torch.bfloat16),
    functools.partial(recur_backward, factors=torch.bfloat16),
    torch.bfloat16,
)


class _StackedLstm(torch.autograd.Function):
    """Rows to the last hidden state; gradients for the four weights only."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        index: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        kernels: Kernels,
    ) -> Tensor:
        gates = gather_rows(project_rows(rows, weight_ih, bias_ih, bias_hh), index)
        cells, hiddens = kernels.forward(gates, weight_hh)
        # Kept as attributes: they are no inputs or outputs, and gates is overwritten on the way back.
        ctx.rows, ctx.index, ctx.weight_hh, ctx.kernels = rows, index, weight_hh, kernels
        ctx.gates, ctx.cells, ctx.hiddens = gates, cells, hiddens
        return hiddens[:, -1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gates, hiddens = ctx.gates, ctx.hiddens
        ctx.kernels.backward(gates, ctx.weight_hh, ctx.cells, grads[0])
        num_models, lookback, num_windows, width = gates.shape
        flat = gates.view(num_models, lookback * num_windows, width).transpose(1, 2)
        inputs = gather_rows(ctx.rows, ctx.index).view(num_models, lookback * num_windows, -1)
        before = hiddens[:, :-1].reshape(num_models, (lookback - 1) * num_windows, -1)
        grad_bias = flat.sum(dim=2)
        return (
            None,
            None,
            product(flat, inputs, ctx.kernels.factors),
            product(flat[:, :, num_windows:], before, ctx.kernels.factors),
            grad_bias,
            grad_bias,
            None,
        )


def last_hidden(
    rows: Tensor,
    starts: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    lookback: int,
    kernels: Kernels = PLAIN,
) -> Tensor:
    """Hidden state after each window's last row, (K, B, H), differentiable in the weights.

    Args:
        rows: (K, R, F) z-scores.
        starts: (K, B) first row of each window.
        weights: weight_ih, weight_hh, bias_ih, bias_hh of nn.LSTM, each with a leading K.
        lookback: rows per window.
        kernels: what runs the recurrence.
    """
    hidden: Tensor = _StackedLstm.apply(rows, window_rows(starts, lookback), *weights, kernels)
    return hidden


def last_hidden_at_evaluation(projected: Tensor, starts: Tensor, weight_hh: Tensor, *, lookback: int) -> Tensor:
    """The same without anything kept for a backward pass: projected (K, R, 4H) from `project_rows`."""
    size = weight_hh.shape[2]
    recurrent = weight_hh.transpose(1, 2)
    hidden = cell = projected.new_zeros(*starts.shape, size)
    for step in range(lookback):
        gates = gather_rows(projected, starts + step)
        if step:
            gates.baddbmm_(hidden, recurrent)
        write, forget, value, output = torch.split(gates, size, dim=2)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(write) * torch.tanh(value)
        hidden = torch.sigmoid(output) * torch.tanh(cell)
    return hidden
