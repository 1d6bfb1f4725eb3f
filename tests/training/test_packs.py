"""Packs waste little, keep every window, and become smaller when memory runs out."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from b3dist.config import Config
from b3dist.data.lake import Lake, ingest
from b3dist.errors import InsufficientDataError
from b3dist.training.asset import load_asset
from b3dist.training.fused import fit_stack
from b3dist.training.fused_data import by_shape
from b3dist.training.packs import (
    bytes_per_model,
    fit_halving,
    is_out_of_memory,
    models_that_fit,
    plan_slices,
    split_evenly,
    wasted_share,
)
from tests.training.stacks import CARD, SMALL, make_members


@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=12), batch_size=st.sampled_from([32, 50, 128]))
@settings(max_examples=60)
def test_every_window_is_in_exactly_one_step(sizes: list[int], batch_size: int) -> None:
    """Whatever the lengths: each model has its full steps and one last one, in order, never wider than a batch."""
    sizes = sorted(sizes, reverse=True)
    steps: list[list[int]] = [[] for _ in sizes]
    for part in plan_slices(sizes, batch_size):
        for slot in range(len(sizes))[part.span]:
            assert part.step == len(steps[slot])
            steps[slot].append(part.width)
    for size, widths in zip(sizes, steps, strict=True):
        assert widths[:-1] == [batch_size] * (-(-size // batch_size) - 1)
        last = size - sum(widths[:-1])
        assert last <= widths[-1] <= batch_size
        assert widths[-1] - last < 32


def test_steps_of_a_model_do_not_depend_on_its_pack() -> None:
    """A model takes the same widths alone and in company."""
    together = [(part.step, part.width) for part in plan_slices([900, 500, 290], 128) if 1 in range(3)[part.span]]
    assert together == [(part.step, part.width) for part in plan_slices([500], 128)]


def test_less_than_15_percent_of_the_arithmetic_is_padding(shared_data: Path, tmp_path: Path) -> None:
    """On the 105 development assets, in the order of a run, for packs of 8, 32 and all; and for any length."""
    ingest([shared_data / "cotahist"], tmp_path / "lake")
    lake, config, sizes = Lake(tmp_path / "lake"), Config(), []
    for ticker in lake.tickers().sort_values(["num_sessions", "ticker"], ascending=[False, True])["ticker"]:
        try:
            data = load_asset(lake, ticker, config)
        except InsufficientDataError:
            continue
        sizes.append((len(data.train), len(data.val)))
    assert len(sizes) == 105
    for most in (8, 32, 105):
        packs = [sizes[first : first + most] for first in range(0, len(sizes), most)]
        wasted = [wasted_share(*zip(*pack, strict=True), batch_size=128) for pack in packs]
        assert max(wasted) < 0.08
    assert max(wasted_share([size], [size // 3], 128) for size in range(290, 2000)) < 0.15


@given(number=st.integers(0, 100), most=st.integers(1, 12))
def test_packs_are_of_even_size(number: int, most: int) -> None:
    """As few as possible, in order, none too large, sizes differing by one at most."""
    packs = split_evenly(range(number), most)
    assert [item for pack in packs for item in pack] == list(range(number))
    assert len(packs) == -(-number // most)
    sizes = {len(pack) for pack in packs}
    assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)


def test_models_of_one_shape_share_a_group() -> None:
    """Whatever else differs; the groups and their members keep their order."""
    sets = [(), ("model.hidden_size=24",), ("loss.gamma=1",), ("data.lookback=10",), ("model.hidden_size=24", "seed=3")]
    members = {name: make_members(1, *SMALL, *overrides)[0] for name, overrides in zip("abcde", sets, strict=True)}
    assert [list(group) for group in by_shape(members)] == [["a", "c"], ["b", "e"], ["d"]]


def test_a_pack_that_does_not_fit_is_halved_until_it_does() -> None:
    """Only packs of up to three fit: all members are fitted once, in order, and the next pack can begin there."""
    asked = []

    def fit(pack: Sequence[int]) -> list[int]:
        asked.append(len(pack))
        if len(pack) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [number * 10 for number in pack]

    assert fit_halving(range(11), fit) == ([number * 10 for number in range(11)], 3)
    assert asked == [11, 6, 3, 3, 3, 2]


def test_one_model_too_many_is_an_error_and_other_errors_are_not_retried() -> None:
    """A single model that does not fit raises; an error that is not about memory raises at once."""
    asked = []

    def fit(pack: Sequence[int]) -> list[int]:
        asked.append(len(pack))
        raise errors[0]

    errors: list[Exception] = [torch.OutOfMemoryError("CUDA out of memory")]
    with pytest.raises(torch.OutOfMemoryError):
        fit_halving(range(4), fit)
    assert asked == [4, 2, 1]
    errors[0] = RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes"):
        fit_halving(range(4), fit)
    assert asked == [4, 2, 1, 4]


def test_memory_that_cuda_itself_lacks_halves_too() -> None:
    """Graphs, kernels and cuBLAS are refused memory by other errors, and a capture breaks off with one of its own."""
    broken = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    assert not is_out_of_memory(broken)
    broken.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    for error in (
        broken,
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        assert is_out_of_memory(error)


STARVED = """
import json, resource, sys
import torch
from b3dist.training.fused import fit_stack
from b3dist.training.packs import fit_halving
from tests.training.stacks import CARD, SMALL, make_members
torch.set_num_threads(1)
members = make_members(8, *CARD, "training.epochs=1", lengths=(420,))
fit_stack(members[:1])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 40 * 2**20, resource.RLIM_INFINITY))
fits, size = fit_halving(members, fit_stack)
print(json.dumps([size, [fit.val_loss for fit in fits]]))
"""


def test_real_shortage_of_memory_halves_the_pack() -> None:
    """A process with 40 MB left cannot train eight models at once, trains them in smaller packs, and gets the same."""
    finished = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    size, losses = json.loads(finished.stdout)
    assert 1 <= size < 8
    fits = fit_stack(make_members(8, *CARD, "training.epochs=1", lengths=(420,)))
    assert losses == [fit.val_loss for fit in fits]  # type: ignore[union-attr]


class LiveMemory(TorchDispatchMode):
    """Bytes of all tensors made meanwhile and still there, in blocks as PyTorch's allocator on GPUs gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look."""
        out = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)):
            storage = tensor.untyped_storage()
            self._known.setdefault(storage._cdata, (StorageWeakRef(storage), -(-storage.nbytes() // 512) * 512))
        self._known = {number: kept for number, kept in self._known.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._known.values()))
        return out


def test_a_model_takes_the_memory_that_packs_are_sized_by() -> None:
    """At the card's shapes an epoch's tensors need less than is counted for a model, and more than a third of it."""
    members = make_members(2, *CARD, "training.epochs=1", lengths=(1200,))
    with LiveMemory() as memory:
        fit_stack(members)
    counted = bytes_per_model(members[0].config, num_features=13, num_rows=1200)
    assert counted / 3 < memory.peak / 2 < counted


def test_packs_are_sized_to_memory() -> None:
    """A wider network takes more; on a CPU the number is fixed."""
    narrow, wide = (Config().with_overrides([f"model.hidden_size={size}"]) for size in (64, 128))
    assert bytes_per_model(narrow, num_features=13, num_rows=1500) < 30 * 2**20
    assert bytes_per_model(wide, num_features=13, num_rows=1500) > 1.8 * bytes_per_model(
        narrow, num_features=13, num_rows=1500
    )
    assert models_that_fit(narrow, device="cpu", num_features=13, num_rows=1500) == 8
