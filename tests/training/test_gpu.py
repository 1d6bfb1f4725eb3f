"""On a GPU an asset sees the same windows and masks as on the CPU."""

import pytest
import torch

from b3dist.training.trainer import fit_asset
from tests.training.test_trainer import config_of, make_asset


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_weights_agree_with_the_cpus() -> None:
    """After two epochs the weights differ by float error only, and come back on the CPU."""
    config = config_of("training.epochs=2", "training.min_delta=0")
    data = make_asset(config)
    on_cpu, on_gpu = fit_asset(data, config), fit_asset(data, config, device="cuda")
    for name, tensor in on_cpu.model.state_dict().items():
        torch.testing.assert_close(on_gpu.model.state_dict()[name], tensor, atol=2e-3, rtol=0)
