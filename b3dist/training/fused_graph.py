"""Training steps of a stack captured as CUDA graphs: one launch instead of hundreds, one graph per shape of a step.

A graph replays the very kernels of the step it was captured from, on the same memory: everything a step reads or
writes must stay where it is until the stack is made smaller, when the graphs are captured anew. Off by default: it has
not been measured yet.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Gradient = Callable[[tuple[Tensor, ...], slice], object]
"""Forward and backward of some models, without changing anything."""
Step = Callable[[tuple[Tensor, ...], slice], None]
"""The same with the update."""

_WARM_UPS = 3
"""Runs on a side stream before a capture, as CUDA libraries set themselves up on first use."""


class GraphedSteps:
    """Runs steps from captured graphs.

    Args:
        gradient: run to warm up.
        step: captured.
    """

    def __init__(self, gradient: Gradient, step: Step) -> None:
        self._gradient, self._step = gradient, step
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[tuple[int, int, int], tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]] = {}

    def run(self, inputs: tuple[Tensor, ...], span: slice) -> None:
        """One step of the models of `span`; captures a graph at the first step of a shape."""
        key = (span.start, span.stop, inputs[0].shape[1])
        if key not in self._graphs:
            self._graphs[key] = self._capture(inputs, span)
        graph, held = self._graphs[key]
        for own, given in zip(held, inputs, strict=True):
            own.copy_(given)
        graph.replay()

    def _capture(self, inputs: tuple[Tensor, ...], span: slice) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
        held = tuple(tensor.clone() for tensor in inputs)
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._gradient(held, span)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._step(held, span)
        return graph, held
