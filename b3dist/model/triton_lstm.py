"""The recurrence of a stack as one Triton kernel each way: all steps inside, the recurrent weights read once.

A program takes one model and a block of its windows: K x B / 16 programs, none of which waits for another. The maths is
tested in Triton's interpreter against plain PyTorch; on a GPU it has not been measured, so nothing uses it by default.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from b3dist.config import Precision
from b3dist.model.stacked_lstm import Kernels

WINDOWS_PER_PROGRAM = 16
"""The least that a GPU's matrix units take."""
OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
"""Of compilation; what a kernel then takes on the chip is tested in tests/model/test_triton_compiles.py, without a GPU.
Fused multiply-adds are the default still, but Triton 3.9 warns of leaving them to it."""


# Hints are tl.tensor and not Any: Triton evaluates them when it compiles, where nothing but its own names is known.
# Written out: Triton compiles its own sigmoid and zeros on import, which is too early for the interpreter.
@triton.jit  # type: ignore[untyped-decorator]
def _sigmoid(x: tl.tensor) -> tl.tensor:
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit  # type: ignore[untyped-decorator]
def _tanh(x: tl.tensor) -> tl.tensor:
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit  # type: ignore[untyped-decorator]
def _forward(
    gates: tl.tensor,
    weight_hh: tl.tensor,
    cells: tl.tensor,
    hiddens: tl.tensor,
    model_stride: tl.tensor,
    lookback: tl.tensor,
    num_windows: tl.tensor,
    size: tl.constexpr,
    block: tl.constexpr,
    factor: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    model = tl.program_id(0).to(tl.int64)
    windows = tl.program_id(1) * block + tl.arange(0, block)
    units = tl.arange(0, size)
    inside = (windows < num_windows)[:, None]
    # (from unit, to unit): nn.LSTM keeps i, f, g, o below each other, each (to unit, from unit).
    weights = weight_hh + model * model_stride + units[None, :] * size + units[:, None]
    to_write, to_forget = tl.load(weights).to(factor), tl.load(weights + size * size).to(factor)
    to_value, to_output = tl.load(weights + 2 * size * size).to(factor), tl.load(weights + 3 * size * size).to(factor)
    hidden = tl.full((block, size), 0.0, dtype=tl.float32)
    cell = tl.full((block, size), 0.0, dtype=tl.float32)
    for step in range(lookback):
        row = ((model * lookback + step) * num_windows + windows)[:, None]
        at, kept = gates + row * (4 * size) + units[None, :], row * size + units[None, :]
        before = hidden.to(factor)
        write = tl.load(at, mask=inside, other=0.0) + tl.dot(before, to_write, input_precision=precision)
        forget = tl.load(at + size, mask=inside, other=0.0) + tl.dot(before, to_forget, input_precision=precision)
        value = tl.load(at + 2 * size, mask=inside, other=0.0) + tl.dot(before, to_value, input_precision=precision)
        output = tl.load(at + 3 * size, mask=inside, other=0.0) + tl.dot(before, to_output, input_precision=precision)
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
    gates: tl.tensor,
    weight_hh: tl.tensor,
    cells: tl.tensor,
    last: tl.tensor,
    model_stride: tl.tensor,
    lookback: tl.tensor,
    num_windows: tl.tensor,
    size: tl.constexpr,
    block: tl.constexpr,
    factor: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    model = tl.program_id(0).to(tl.int64)
    windows = tl.program_id(1) * block + tl.arange(0, block)
    units = tl.arange(0, size)
    inside = (windows < num_windows)[:, None]
    weights = weight_hh + model * model_stride + units[:, None] * size + units[None, :]  # (to unit, from unit)
    from_write, from_forget = tl.load(weights).to(factor), tl.load(weights + size * size).to(factor)
    from_value = tl.load(weights + 2 * size * size).to(factor)
    from_output = tl.load(weights + 3 * size * size).to(factor)
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
        to_hidden = tl.dot(grad_write.to(factor), from_write, input_precision=precision)
        to_hidden += tl.dot(grad_forget.to(factor), from_forget, input_precision=precision)
        to_hidden += tl.dot(grad_value.to(factor), from_value, input_precision=precision)
        to_hidden += tl.dot(grad_output.to(factor), from_output, input_precision=precision)
        to_cell = to_cell * forget


def fits_triton(hidden_size: int) -> bool:
    """Whether the kernels can run this size: a power of two from 16 to 64 (all weights of a model stay on the chip)."""
    return hidden_size in (16, 32, 64)


def _launch(kernel: Any, gates: Tensor, weight_hh: Tensor, first: Tensor, second: Tensor, precision: Precision) -> None:
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
        **constants(size, precision),
        **OPTIONS,
    )


def constants(size: int, precision: Precision) -> dict[str, Any]:
    """What a kernel is compiled for."""
    return {
        "size": size,
        "block": WINDOWS_PER_PROGRAM,
        "factor": tl.bfloat16 if precision == "bf16" else tl.float32,
        "precision": "tf32" if precision == "tf32" else "ieee",
    }


def triton_kernels(precision: Precision = "fp32") -> Kernels:
    """The recurrence both ways in Triton, its products in float32, TF32 or bfloat16."""

    def forward(gates: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        num_models, lookback, num_windows, width = gates.shape
        cells = gates.new_empty(num_models, lookback, num_windows, width // 4)
        hiddens = torch.empty_like(cells)
        _launch(_forward, gates, weight_hh, cells, hiddens, precision)
        return cells, hiddens

    def backward(gates: Tensor, weight_hh: Tensor, cells: Tensor, last: Tensor) -> None:
        _launch(_backward, gates, weight_hh, cells, last.contiguous(), precision)

    return Kernels(forward, backward, torch.bfloat16 if precision == "bf16" else None)
