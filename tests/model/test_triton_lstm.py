"""The Triton kernels compute what plain PyTorch computes: in the interpreter without a GPU, for real with one."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from b3dist.model.stacked_lstm import recur, recur_backward

triton = pytest.importorskip("triton", reason="Triton is not installed for this platform")


@pytest.fixture(scope="module")
def kernels() -> Iterator[ModuleType]:
    """The kernels' module; interpreted where there is no GPU, which Triton decides when they are defined."""
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setenv("TRITON_INTERPRET", "1")
        sys.modules.pop("b3dist.model.triton_lstm", None)
        yield importlib.import_module("b3dist.model.triton_lstm")
        sys.modules.pop("b3dist.model.triton_lstm", None)


BF16 = pytest.param(
    "bf16",
    3e-2,
    marks=pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA device, and Triton's interpreter multiplies bfloat16's bits"
    ),
)


@pytest.mark.parametrize(
    ("num_models", "lookback", "num_windows", "size"), [(2, 3, 16, 16), (3, 4, 21, 32), (1, 2, 5, 64)]
)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("tf32", 1e-2), BF16])
def test_both_ways_equal_plain_pytorch(
    kernels: ModuleType,
    precision: str,
    tolerance: float,
    num_models: int,
    lookback: int,
    num_windows: int,
    size: int,
) -> None:
    """Activations, cells, hidden states and gradients within the precision, also where a block is not full."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(size)
    gates = torch.randn(num_models, lookback, num_windows, 4 * size, generator=generator).to(device)
    # A slice of a wider buffer, as the stack's weights are.
    flat = (torch.randn(num_models, 4 * size * size + 48, generator=generator) / size**0.5).to(device)
    weight_hh = flat[:, 16 : 16 + 4 * size * size].view(num_models, 4 * size, size)
    last = torch.randn(num_models, num_windows, size, generator=generator).to(device)
    expected = gates.clone()
    cells, hiddens = recur(expected, weight_hh)
    kernel = kernels.triton_kernels(precision)
    found = gates.clone()
    found_cells, found_hiddens = kernel.forward(found, weight_hh)
    for one, other in ((found, expected), (found_cells, cells), (found_hiddens, hiddens)):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)
    recur_backward(expected, weight_hh, cells, last)
    kernel.backward(found, weight_hh, found_cells, last)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_sizes_that_do_not_stay_on_the_chip_are_known(kernels: ModuleType) -> None:
    """The card's 64 units fit; odd and large sizes are for plain PyTorch."""
    assert [size for size in (8, 16, 24, 32, 64, 128) if kernels.fits_triton(size)] == [16, 32, 64]
