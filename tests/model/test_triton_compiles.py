"""The Triton kernels compile for GPUs that are not there, and what they take fits on the chip."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed for this platform")
GPUTarget = pytest.importorskip("triton.backends.compiler", reason="this Triton has no compiler").GPUTarget

HOPPER_SHARED, AMPERE_SHARED = 227 * 1024, 163 * 1024
"""Bytes of shared memory that the programs on one multiprocessor of an H100 and an A100 can have."""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The kernels' module, not interpreted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        sys.modules.pop("b3dist.model.triton_lstm", None)
        yield importlib.import_module("b3dist.model.triton_lstm")
        sys.modules.pop("b3dist.model.triton_lstm", None)


class AbsentGpu:
    """What Triton asks of a GPU's driver before it compiles a kernel for it."""

    def __init__(self, arch: int) -> None:
        self._arch = arch

    def get_current_target(self) -> Any:
        """What to compile for."""
        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self) -> int:
        """A number of its own for each kind, since Triton keeps what it compiled by device."""
        return self._arch

    def get_current_stream(self, device: int) -> int:  # noqa: ARG002  Triton's signature
        """The default one."""
        return 0


class Compiled:
    """Stands in for a kernel where it is launched: compiles it as for this launch, and keeps what came of it."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self.binary: Any = None

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            self.binary = self._kernel.warmup(*arguments, grid=grid, **options)

        return launch


def compiled(kernels: ModuleType, way: str, *, size: int, precision: str, arch: int, folder: Path) -> dict[str, int]:
    """What a program takes: registers a thread, bytes of spilled ones, bytes of shared memory."""
    gates = torch.zeros(2, 3, 32, 4 * size)
    flat = torch.zeros(2, 4 * size * size + 48)  # the weights' place in a stack's buffer
    weight_hh = flat[:, 16 : 16 + 4 * size * size].view(2, 4 * size, size)
    cells = torch.zeros(2, 3, 32, size)
    kernel = Compiled(getattr(kernels, way))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.runtime.driver, "_active", AbsentGpu(arch))
        kernels._launch(kernel, gates, weight_hh, cells, torch.zeros_like(cells), precision)
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.binary.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", told)}
    return {
        "registers": usage["REG"],
        "spilled": usage["STACK"] + usage["LOCAL"],
        "shared": kernel.binary.metadata.shared + usage["SHARED"],
    }


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("way", ["_forward", "_backward"])
def test_the_cards_size_fits_an_h100_twice(kernels: ModuleType, way: str, precision: str, tmp_path: Path) -> None:
    """64 units: no register is spilled, and two programs at least share a multiprocessor."""
    used = compiled(kernels, way, size=64, precision=precision, arch=90, folder=tmp_path)
    assert used["spilled"] == 0, used
    assert 2 * used["shared"] <= HOPPER_SHARED, used
    assert 2 * used["registers"] * 32 * kernels.OPTIONS["num_warps"] <= 65536, used


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("way", ["_forward", "_backward"])
def test_every_size_fits_an_a100(kernels: ModuleType, way: str, size: int, tmp_path: Path) -> None:
    """The generation before has less shared memory; float32 spills a little there with 64 units."""
    used = compiled(kernels, way, size=size, precision="fp32", arch=80, folder=tmp_path)
    assert used["shared"] <= AMPERE_SHARED, used
    assert used["spilled"] <= 512, used
