"""Training steps of a stack captured as CUDA graphs: one launch instead of hundreds, one graph per shape of a step.

A graph replays the very kernels of the step it was captured from, on the same memory: everything a step reads or
writes must stay where it is until the stack is made smaller, when the graphs are captured anew. Off by default: it has
not been measured yet.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

Gradient = Callable[[tuple[Tensor, ...], slice], object]
"""Forward and backward of some models, without changing anything."""
Step = Callable[[tuple[Tensor, ...], slice], None]
"""The same with the update."""

_WARM_UPS = 3
"""Runs on a side stream before a capture, as CUDA libraries set themselves up on first use."""


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Where graphs are captured; always the same one, since cuBLAS keeps a workspace (32 MB) for each stream it saw."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class GraphedSteps:
    """Runs steps from captured graphs; what the steps belong to is given with each, for it holds this object."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[tuple[int, int, int], tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]] = {}

    def run(self, inputs: tuple[Tensor, ...], span: slice, *, gradient: Gradient, step: Step) -> None:
        """One step of the models of `span`; captures a graph at the first step of a shape.

        Args:
            inputs: of the step; the first is (A, B).
            span: which models.
            gradient: run to warm up.
            step: captured.
        """
        key = (span.start, span.stop, inputs[0].shape[1])
        if key not in self._graphs:
            held = tuple(tensor.clone() for tensor in inputs)
            self._graphs[key] = _capture(held, span, gradient=gradient, step=step, pool=self._pool), held
        graph, held = self._graphs[key]
        for own, given in zip(held, inputs, strict=True):
            own.copy_(given)
        graph.replay()


def _capture(
    held: tuple[Tensor, ...], span: slice, *, gradient: Gradient, step: Step, pool: "torch.cuda._POOL_HANDLE"
) -> torch.cuda.CUDAGraph:
    device = held[0].device
    current, side = torch.cuda.current_stream(device), _side_stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            gradient(held, span)
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=side):
        step(held, span)
    return graph
