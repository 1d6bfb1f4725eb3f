"""The stacked pass equals the plain network, whatever the mixture, number of blocks and order of slots."""

import numpy as np
import pytest
import torch

from b3dist.config import ModelConfig
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.model.stacked import stack_states
from b3dist.scoring import forward
from b3dist.scoring.forward import StackedModels


@pytest.mark.parametrize("block_bytes", [1, 20_000, 8 * 2**20])
def test_every_window_gets_its_own_models_outputs(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    """Seven models, one to three windows each, shuffled; one model per block, several, or all in one."""
    monkeypatch.setattr(forward, "BLOCK_BYTES", block_bytes)
    generator = torch.Generator().manual_seed(1)
    models = [LstmMtl(13, ModelConfig(hidden_size=16), generator=generator).eval() for _ in range(12)]
    stack = StackedModels(stack_states([model.state_dict() for model in models]))
    assert len(stack) == 12
    slots = np.array([11, 3, 0, 5, 3, 7, 8, 9, 3, 10, 0, 2])
    windows = torch.randn(len(slots), 32, 13, generator=generator)
    with torch.inference_mode():
        outputs = stack.outputs(slots, windows)
        for row, slot in enumerate(slots):
            logits, returns = models[slot](windows[row : row + 1])
            torch.testing.assert_close(outputs[row, :3], logits[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(outputs[row, 3:], returns, rtol=0, atol=1e-6)
        everyone = stack.outputs(np.arange(12), windows)
        backwards = stack.outputs(np.arange(12)[::-1].copy(), windows.flip(0)).flip(0)
    torch.testing.assert_close(backwards, everyone, rtol=0, atol=1e-6)


def test_long_batches_of_one_model_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's many windows give the same in pieces as at once."""
    generator = torch.Generator().manual_seed(2)
    stack = StackedModels(stack_states([LstmMtl(13, ModelConfig(hidden_size=16), generator=generator).state_dict()]))
    windows = torch.randn(50, 32, 13, generator=generator)
    with torch.inference_mode():
        at_once = stack.of_one(0, windows, torch.arange(50))
        monkeypatch.setattr(forward, "WINDOWS_AT_ONCE", 7)
        torch.testing.assert_close(stack.of_one(0, windows, torch.arange(50)), at_once, rtol=0, atol=1e-6)
