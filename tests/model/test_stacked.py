"""A stack computes what its networks compute one by one."""

import pytest
import torch

from b3dist.config import ModelConfig
from b3dist.model.lstm_mtl import LstmMtl, draw_dropout_masks
from b3dist.model.stacked import stack_states, stacked_forward


@pytest.mark.parametrize("num_models", [1, 3])
def test_each_slot_equals_its_plain_network(num_models: int) -> None:
    """In float64, with dropout masks, slot k's logits and returns are network k's within 1e-12."""
    generator = torch.Generator().manual_seed(3)
    config = ModelConfig(hidden_size=16)
    models = [LstmMtl(13, config, generator=generator).double() for _ in range(num_models)]
    windows = torch.randn(num_models, 5, 8, 13, generator=generator, dtype=torch.float64)
    masks = draw_dropout_masks(5 * num_models, config, generator).double().view(num_models, 5, 16)
    logits, returns = stacked_forward(stack_states([model.state_dict() for model in models]), windows, masks)
    for slot, model in enumerate(models):
        expected_logits, expected_returns = model(windows[slot], masks[slot])
        torch.testing.assert_close(logits[slot], expected_logits, atol=1e-12, rtol=0)
        torch.testing.assert_close(returns[slot], expected_returns, atol=1e-12, rtol=0)
