"""How models share a stack: which steps they take together, how many fit on a device, what padding costs."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from b3dist.config import Config
from b3dist.data.features import FEATURE_NAMES
from b3dist.data.lake import Lake

WIDTH_MULTIPLE = 32
"""A model's last step of an epoch is padded to a multiple of this, whatever its neighbours need: the width decides the
last bits of a gradient, and a model's must not depend on the pack it is in."""

MOST_MODELS = 512
"""Models per stack at most: a pack's assets are lost together when its worker is killed."""
CPU_MODELS = 8
"""Models per stack on a CPU: 17 and 64 ran no faster in one run each (docs/benchmarks.md)."""
_SLACK = 1.3
"""What the allocator and the library take beyond the tensors counted, and temporaries."""


@dataclass(frozen=True)
class StepSlice:
    """One step of the models that lie side by side and have as many windows in it."""

    step: int
    span: slice
    """Which models."""
    width: int
    """Windows of each, padding included."""


def plan_slices(sizes: Sequence[int], batch_size: int) -> list[StepSlice]:
    """An epoch's steps for models of so many windows, in descending order of windows."""
    slices = []
    for step in range(-(-sizes[0] // batch_size)):
        widths = [_width(size - step * batch_size, batch_size) for size in sizes]
        for width in sorted(set(widths) - {0}, reverse=True):
            first = widths.index(width)
            slices.append(StepSlice(step, slice(first, first + widths.count(width)), width))
    return slices


def _width(left: int, batch_size: int) -> int:
    """Windows of a step, padding included, for a model with so many left."""
    return max(0, min(batch_size, -(-left // WIDTH_MULTIPLE) * WIDTH_MULTIPLE))


def wasted_share(train_sizes: Sequence[int], val_sizes: Sequence[int], batch_size: int) -> float:
    """Share of padding in the arithmetic of a pack's epoch; a training window costs three times one judged."""
    slices = plan_slices(sorted(train_sizes, reverse=True), batch_size)
    computed = 3 * sum((part.span.stop - part.span.start) * part.width for part in slices)
    computed += max(val_sizes) * len(val_sizes)
    return 1.0 - (3 * sum(train_sizes) + sum(val_sizes)) / float(computed)


def bytes_per_model(config: Config, *, num_features: int, num_rows: int) -> int:
    """Device memory that one more model of a stack takes, about; num_rows bounds its rows and windows."""
    size, batch, lookback = config.model.hidden_size, config.training.batch_size, config.data.lookback
    num_weights = 4 * size * (num_features + size + 2) + 4 * (size + 1)
    floats = batch * lookback * (4 * size + 2 * size + num_features)  # gates, cells and hiddens, gathered rows
    floats += num_rows * (num_features + 4 * size)  # rows, and their projections at evaluation
    floats += num_rows * (2 * size + 8)  # dropout masks with a copy, and the windows' numbers
    floats += 7 * num_weights  # weights, best weights, gradients with a copy, moments, temporaries
    floats += 512 * 12 * size  # a chunk of evaluation
    return int(_SLACK * 4 * floats)


def models_that_fit(config: Config, *, device: str, num_features: int, num_rows: int, share: float = 1.0) -> int:
    """How many models of a stack to begin with on a device, of which `share` (0 to 1) may be used."""
    if device == "cpu":
        return CPU_MODELS
    free, total = torch.cuda.mem_get_info(device)
    available = min(0.9 * free, share * total)
    return max(
        1, min(MOST_MODELS, int(available / bytes_per_model(config, num_features=num_features, num_rows=num_rows)))
    )


def models_of_lake(lake: Lake, config: Config, *, device: str, gpu_share: float) -> int:
    """How many models fit, each of an asset of a lake; `gpu_share` is what this worker may use of a GPU's memory."""
    return models_that_fit(
        config,
        device=device,
        num_features=len(FEATURE_NAMES[config.data.feature_set]),
        num_rows=int(lake.tickers()["num_sessions"].max()),
        share=min(gpu_share, 1.0),
    )


def split_evenly[T](items: Sequence[T], most: int) -> list[list[T]]:
    """Packs of at most `most` in the order of the items; their sizes differ by one at most."""
    number = -(-len(items) // most)
    ends = [round(len(items) * place / number) for place in range(number + 1)] if number else [0]
    return [list(items[first:last]) for first, last in itertools.pairwise(ends)]


def fit_halving[M, R](members: Sequence[M], fit: Callable[[Sequence[M]], list[R]]) -> tuple[list[R], int]:
    """Fit members as one pack, or as halves of it while the memory does not suffice.

    Args:
        members: at least one.
        fit: fits a pack, one result per member in their order.

    Returns:
        The results in the order of `members`, and the size of the largest pack that did fit.

    Raises:
        torch.OutOfMemoryError: one member alone does not fit.
    """
    results: list[R] = []
    size = len(members)
    while len(results) < len(members):
        pack = members[len(results) : len(results) + size]
        fitted = _fit_if_possible(pack, fit)
        if fitted is None:
            size = -(-len(pack) // 2)
        else:
            results += fitted
    return results, size


def _fit_if_possible[M, R](pack: Sequence[M], fit: Callable[[Sequence[M]], list[R]]) -> list[R] | None:
    """None if there is not enough memory for several; here, so that what the attempt held is free again on return."""
    try:
        return fit(pack)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if len(pack) == 1 or not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",  # of what CUDA itself allocates: kernels, graphs, pinned memory
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory is used up, or came of one that does.

    PyTorch has a type for what its own allocator on GPUs is refused, and nothing but a message for the rest. Where
    memory runs out while a graph is captured, the last error is that of the capture.
    """
    if isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in _OUT_OF_MEMORY):
        return True
    return error.__context__ is not None and is_out_of_memory(error.__context__)
