"""How products are computed: where less than 32 bits can be had, for a while, and in the same order each time."""

import contextlib
import os
from collections.abc import Iterator

import torch

from b3dist.config import Precision
from b3dist.errors import ConfigError


def require_supported(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that the device would only emulate.

    Raises:
        ConfigError: tf32 off a GPU, or bf16 on a CPU without AVX-512 BF16 or AMX.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError("training.precision tf32 needs a GPU", hint="--precision fp32 or bf16")
    if precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        raise ConfigError(
            "training.precision bf16 needs a CPU with AVX-512 BF16 or AMX, which this one lacks",
            hint="--precision fp32",
        )


def fix_order_of_sums(device: torch.device) -> None:
    """Have a GPU's libraries sum in the same order in every run; heeded before their first product in a process only.

    Source: PyTorch's notes on nn.LSTM and on reproducibility.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies in bfloat16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextlib.contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """float32 products on GPUs in TF32 meanwhile, if that is asked for, and else in float32.

    cuDNN, which runs nn.LSTM there, has a switch of its own, and PyTorch leaves it on.
    """
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = cudnn
