"""A GPU that is not there: tensors that say they are on one are kept to the rules of CUDA, and computed on the CPU.

Each operation on such a tensor also runs on PyTorch's fake tensors (`torch._subclasses`), which know shapes and devices
only: those refuse to mix devices as CUDA does, and tell what would make the CPU wait for the GPU. Numbers come from the
CPU, so whatever trains here must end with the CPU's very bits. Speed, memory and cuDNN's own kernels are out of reach.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from b3dist.training import fused_graph

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class PretendedGpu:
    """While entered, `device="cuda"` can be asked for; `events` names each wait and each copy between the devices."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.capturing: PretendedGraph | None = None
        self.fakes = FakeTensorMode()
        self._there: dict[int, StorageWeakRef] = {}  # a reference keeps the number from being given to another

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        fused_graph._side_stream.cache_clear()  # a real one, and on the way out the pretended one
        self._stack.callback(fused_graph._side_stream.cache_clear)
        calls, run_backward = _Calls(self), torch.autograd._engine_run_backward

        def backward(*arguments: Any, **options: Any) -> Any:
            with calls:  # PyTorch leaves a mode while it handles a call, and this one calls Python code
                return run_backward(*arguments, **options)

        for name, value in {
            "autograd._engine_run_backward": backward,
            "backends.cudnn.is_acceptable": lambda tensor: False,  # noqa: ARG005  for lack of its flat weights
        }.items():
            self._stack.enter_context(mock.patch(f"torch.{name}", value))
        for name, value in {
            "empty_cache": lambda: None,
            "mem_get_info": lambda device=None: (70 * 2**30, 80 * 2**30),  # noqa: ARG005
            "graph_pool_handle": lambda: (0, 1),
            "current_stream": lambda device=None: _Stream(),  # noqa: ARG005
            "Stream": lambda device=None: _Stream(),  # noqa: ARG005
            "stream": lambda stream: contextlib.nullcontext(),  # noqa: ARG005
            "CUDAGraph": PretendedGraph,
            "graph": self._capture,
        }.items():
            self._stack.enter_context(mock.patch(f"torch.cuda.{name}", value))
        self._stack.enter_context(_Operations(self))
        self._stack.enter_context(calls)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def device_of(self, tensor: Tensor) -> torch.device:
        """Where a tensor says it is."""
        return GPU if tensor.untyped_storage()._cdata in self._there else CPU

    def place(self, tensor: Tensor, device: torch.device) -> None:
        """Have a tensor, and all that share its memory, be somewhere."""
        storage = tensor.untyped_storage()
        if device.type == "cuda":
            self._there[storage._cdata] = StorageWeakRef(storage)
        else:
            self._there.pop(storage._cdata, None)

    def note(self, event: str) -> None:
        """A wait or a copy, which no capture allows."""
        if self.capturing is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {event}")
        self.events.append(event)

    @contextlib.contextmanager
    def _capture(self, graph: "PretendedGraph", **_options: object) -> Iterator[None]:
        self.capturing = graph
        try:
            yield
        finally:
            self.capturing = None
            graph.undo()


class _Stream:
    def wait_stream(self, stream: object) -> None:
        """Nothing runs beside anything else here."""


class PretendedGraph:
    """Operations with the tensors they were captured on: a replay runs them again on the very same memory."""

    def __init__(self) -> None:
        self._tape: list[tuple[Any, Any, Any, Any]] = []
        self._own: set[int] = set()
        self._before: dict[int, tuple[Any, Any]] = {}

    def keep(self, func: Any, args: Any, kwargs: Any) -> None:
        """Memory that an operation is about to overwrite, if not the capture's own."""
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._keep(value)
        self._keep(kwargs.get("out"))

    def _keep(self, value: Any) -> None:
        for tensor in (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._own and storage._cdata not in self._before:
                self._before[storage._cdata] = storage, storage.clone()

    def add(self, func: Any, args: Any, kwargs: Any, out: Any, *, fresh: set[int]) -> None:
        """An operation that was captured; `fresh` is memory that it allocated."""
        self._own |= fresh
        self._tape.append(
            (func, args, kwargs, [(leaf, leaf.untyped_storage()._cdata in fresh) for leaf in _tensors(out)])
        )

    def undo(self) -> None:
        """Put back what was overwritten: a capture computes nothing."""
        for storage, before in self._before.values():
            storage.copy_(before)
        self._before.clear()

    def replay(self) -> None:
        """Run everything again."""
        with torch._C._DisableTorchDispatch(), torch.no_grad(), torch._C.DisableTorchFunction():
            for func, args, kwargs, outs in self._tape:
                again = _tensors(func(*args, **kwargs))
                for (out, is_fresh), new in zip(outs, again, strict=True):
                    if is_fresh:
                        out.copy_(new)


def _tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


class _Operations(TorchDispatchMode):
    """What PyTorch's operators do, below autograd."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # what follows asks no questions as Python code of a training does
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        gpu = self._gpu
        given = _tensors((args, kwargs))
        there = any(gpu.device_of(tensor).type == "cuda" for tensor in given)
        if there:
            kwargs = {name: value for name, value in kwargs.items() if name != "device"}  # the CPU's, from C++
        fakes = self._fake(func, args, kwargs) if there else None
        if gpu.capturing is not None:
            gpu.capturing.keep(func, args, kwargs)
        out = func(*args, **kwargs)
        known = {tensor.untyped_storage()._cdata for tensor in given}
        fresh = [tensor for tensor in _tensors(out) if tensor.untyped_storage()._cdata not in known]
        if gpu.capturing is not None:
            gpu.capturing.add(func, args, kwargs, out, fresh={one.untyped_storage()._cdata for one in fresh})
        if there:
            devices = dict(zip(map(id, _tensors(out)), fakes or [GPU] * len(_tensors(out)), strict=True))
            for tensor in fresh:
                gpu.place(tensor, devices[id(tensor)])
        return out

    def _fake(self, func: Any, args: Any, kwargs: Any) -> list[torch.device] | None:
        """Devices of the results, None where they are not known without the numbers."""
        if func is torch.ops.aten.lstm.input:  # would ask cuDNN
            assert {self._gpu.device_of(tensor) for tensor in _tensors((args, kwargs))} == {GPU}
            return None

        def fake(tensor: Tensor) -> Tensor:
            size, stride, device = tensor.size(), tensor.stride(), self._gpu.device_of(tensor)
            return torch.empty_strided(size, stride, dtype=tensor.dtype, device=device)

        with torch.inference_mode(mode=False), self._gpu.fakes:
            copies = tree_map_only(Tensor, fake, (args, kwargs))
            try:
                return [one.device for one in _tensors(func(*copies[0], **copies[1]))]
            except (DataDependentOutputException, DynamicOutputShapeException):
                self._gpu.note(f"wait: {func}")
                return None


class _Calls(TorchFunctionMode):
    """What Python asks of tensors: where they are, and to be made or moved somewhere."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu = dict(kwargs or {}), self._gpu
        if func == torch.Tensor.device.__get__:
            return gpu.device_of(args[0])
        if func == torch.Tensor.is_cuda.__get__:
            return gpu.device_of(args[0]).type == "cuda"
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and gpu.device_of(args[0]).type == "cuda":
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func == torch.Tensor.tolist and gpu.device_of(args[0]).type == "cuda":
            gpu.note("wait: tolist")
        if func == torch.Tensor.cpu:
            return self._moved(args[0], CPU, torch.clone)
        if func == torch.Tensor.cuda:
            return self._moved(args[0], GPU, torch.clone)
        if func == torch.Tensor.to:
            return self._to(args, kwargs)
        kwargs.pop("pin_memory", None)
        device = kwargs.pop("device", None)
        out = func(*args, **kwargs)
        if device is not None and torch.device(device).type == "cuda":
            for tensor in _tensors(out):
                gpu.place(tensor, GPU)
        return out

    def _to(self, args: Any, kwargs: Any) -> Tensor:
        tensor, *rest = args
        kwargs.pop("non_blocking", None)
        device = kwargs.pop("device", None)
        for one in rest:
            if isinstance(one, str | torch.device):
                device = one
            elif isinstance(one, Tensor):
                device, kwargs["dtype"] = self._gpu.device_of(one), one.dtype
        rest = [one for one in rest if isinstance(one, torch.dtype)]
        change = (lambda one: one.to(*rest, **kwargs)) if rest or kwargs else (lambda one: one)
        if device is None:
            return change(tensor)
        return self._moved(tensor, torch.device(device), lambda one: change(one).clone(), change)

    def _moved(
        self,
        tensor: Tensor,
        device: torch.device,
        change: Callable[[Tensor], Tensor],
        in_place: Callable[[Tensor], Tensor] = lambda one: one,
    ) -> Tensor:
        before = self._gpu.device_of(tensor)
        if before.type == device.type:
            return in_place(tensor)
        self._gpu.note(f"copy: {before.type} to {device.type}")
        moved = change(tensor)
        self._gpu.place(moved, device)
        return moved
