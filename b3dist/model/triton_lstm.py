"""The recurrence of a stack as one Triton kernel each way: all steps inside, the recurrent weights read once.

A program takes one model and a block of its windows: K x B / 16 programs, none of which waits for another. The maths is
tested in Triton's interpreter against plain PyTorch; on a GPU it has not been measured, so nothing uses it by default.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from b3dist.model.stacked_lstm import Kernels

WINDOWS_PER_PROGRAM = 16
"""The least that a GPU's matrix units take."""


# Written out: Triton compiles its own sigmoid and zeros on import, which is too early for the interpreter.
@triton.jit  # type: ignore[untyped-decorator]
def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit  # type: ignore[untyped-decorator]
def _tanh(x: Any) -> Any:
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit  # type: ignore[untyped-decorator]
def _forward(
    gates: Any,
    weight_hh: Any,
    cells: Any,
    hiddens: Any,
    model_stride: Any,
    lookback: Any,
    num_windows: Any,
    size: tl.constexpr,
    block: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    model = tl.program_id(0).to(tl.int64)
    windows = tl.program_id(1) * block + tl.arange(0, block)
    units = tl.arange(0, size)
    inside = (windows < num_windows)[:, None]
    # (from unit, to unit): nn.LSTM keeps i, f, g, o below each other, each (to unit, from unit).
    weights = weight_hh + model * model_stride + units[None, :] * size + units[:, None]
    to_write, to_forget = tl.load(weights), tl.load(weights + size * size)
    to_value, to_output = tl.load(weights + 2 * size * size), tl.load(weights + 3 * size * size)
    hidden = tl.full((block, size), 0.0, dtype=tl.float32)
    cell = tl.full((block, size), 0.0, dtype=tl.float32)
    for step in range(lookback):
        row = ((model * lookback + step) * num_windows + windows)[:, None]
        at, kept = gates + row * (4 * size) + units[None, :], row * size + units[None, :]
        write = tl.load(at, mask=inside, other=0.0) + tl.dot(hidden, to_write, input_precision=precision)
        forget = tl.load(at + size, mask=inside, other=0.0) + tl.dot(hidden, to_forget, input_precision=precision)
        value = tl.load(at + 2 * size, mask=inside, other=0.0) + tl.dot(hidden, to_value, input_precision=precision)
        output = tl.load(at + 3 * size, mask=inside, other=0.0) + tl.dot(hidden, to_output, input_precision=precision)
        write, forget, value, output = _sigmoid(write), _sigmoid(forget), _tanh(value), _sigmoid(output)
        cell = forget * cell + write * value
        hidden = output * _tanh(cell)
        tl.store(at, write, mask=inside)
        tl.store(at + size, forget, mask=inside)
        tl.store(at + 2 * size, value, mask=inside)
        tl.store(at + 3 * size, output, mask=inside)
        tl.store(cells + kept, cell, mask=inside)
        tl.store(hiddens + kept, hidden, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(
    gates: Any,
    weight_hh: Any,
    cells: Any,
    last: Any,
    model_stride: Any,
    lookback: Any,
    num_windows: Any,
    size: tl.constexpr,
    block: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    model = tl.program_id(0).to(tl.int64)
    windows = tl.program_id(1) * block + tl.arange(0, block)
    units = tl.arange(0, size)
    inside = (windows < num_windows)[:, None]
    weights = weight_hh + model * model_stride + units[:, None] * size + units[None, :]  # (to unit, from unit)
    from_write, from_forget = tl.load(weights), tl.load(weights + size * size)
    from_value, from_output = tl.load(weights + 2 * size * size), tl.load(weights + 3 * size * size)
    own = (model * num_windows + windows)[:, None] * size + units[None, :]
    to_hidden = tl.load(last + own, mask=inside, other=0.0)
    to_cell = tl.full((block, size), 0.0, dtype=tl.float32)
    for back in range(lookback):
        step = lookback - 1 - back
        row = ((model * lookback + step) * num_windows + windows)[:, None]
        at, kept = gates + row * (4 * size) + units[None, :], row * size + units[None, :]
        write = tl.load(at, mask=inside, other=0.0)
        forget = tl.load(at + size, mask=inside, other=0.0)
        value = tl.load(at + 2 * size, mask=inside, other=0.0)
        output = tl.load(at + 3 * size, mask=inside, other=0.0)
        cell = _tanh(tl.load(cells + kept, mask=inside, other=0.0))
        earlier = tl.minimum(step, 1)  # 0 for the first step: before it there is no cell
        before = tl.load(cells + kept - earlier * num_windows * size, mask=inside, other=0.0) * earlier
        to_cell += to_hidden * output * (1.0 - cell * cell)
        grad_output = to_hidden * cell * output * (1.0 - output)
        grad_write = to_cell * value * write * (1.0 - write)
        grad_value = to_cell * write * (1.0 - value * value)
        grad_forget = to_cell * before * forget * (1.0 - forget)
        tl.store(at, grad_write, mask=inside)
        tl.store(at + size, grad_forget, mask=inside)
        tl.store(at + 2 * size, grad_value, mask=inside)
        tl.store(at + 3 * size, grad_output, mask=inside)
        to_hidden = tl.dot(grad_write, from_write, input_precision=precision)
        to_hidden += tl.dot(grad_forget, from_forget, input_precision=precision)
        to_hidden += tl.dot(grad_value, from_value, input_precision=precision)
        to_hidden += tl.dot(grad_output, from_output, input_precision=precision)
        to_cell = to_cell * forget


def fits_triton(hidden_size: int) -> bool:
    """Whether the kernels can run this size: a power of two from 16 to 64 (all weights of a model stay on the chip)."""
    return hidden_size in (16, 32, 64)


def _launch(kernel: Any, gates: Tensor, weight_hh: Tensor, first: Tensor, second: Tensor, precision: str) -> None:
    num_models, lookback, num_windows, width = gates.shape
    size = width // 4
    assert fits_triton(size)
    assert gates.is_contiguous() and first.is_contiguous() and second.is_contiguous()
    assert weight_hh.stride()[1:] == (size, 1)
    grid = (num_models, triton.cdiv(num_windows, WINDOWS_PER_PROGRAM))
    kernel[grid](
        gates,
        weight_hh,
        first,
        second,
        weight_hh.stride(0),
        lookback,
        num_windows,
        size=size,
        block=WINDOWS_PER_PROGRAM,
        precision=precision,
    )


def triton_kernels(*, tf32: bool = False) -> Kernels:
    """The recurrence both ways in Triton, multiplied in float32 or in TF32."""
    precision = "tf32" if tf32 else "ieee"

    def forward(gates: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        num_models, lookback, num_windows, width = gates.shape
        cells = gates.new_empty(num_models, lookback, num_windows, width // 4)
        hiddens = torch.empty_like(cells)
        _launch(_forward, gates, weight_hh, cells, hiddens, precision)
        return cells, hiddens

    def backward(gates: Tensor, weight_hh: Tensor, cells: Tensor, last: Tensor) -> None:
        _launch(_backward, gates, weight_hh, cells, last.contiguous(), precision)

    return Kernels(forward, backward)
