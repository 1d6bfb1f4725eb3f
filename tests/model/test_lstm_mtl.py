"""The network is the card's, checked against a plain NumPy LSTM."""

import numpy as np
import torch

from b3dist.config import ModelConfig
from b3dist.model.lstm_mtl import LstmMtl, draw_dropout_masks


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-values))


def numpy_forward(model: LstmMtl, window: np.ndarray) -> tuple[np.ndarray, float]:
    """One window (lookback, F) through the LSTM equations, gate order i, f, g, o."""
    weights = {name: tensor.detach().numpy().astype(np.float64) for name, tensor in model.state_dict().items()}
    hidden_size = weights["lstm.weight_hh_l0"].shape[1]
    hidden, cell = np.zeros(hidden_size), np.zeros(hidden_size)
    for row in window:
        gates = weights["lstm.weight_ih_l0"] @ row + weights["lstm.bias_ih_l0"]
        gates += weights["lstm.weight_hh_l0"] @ hidden + weights["lstm.bias_hh_l0"]
        write, forget, value, output = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(write) * np.tanh(value)
        hidden = sigmoid(output) * np.tanh(cell)
    logits = weights["action_head.weight"] @ hidden + weights["action_head.bias"]
    return logits, float((weights["return_head.weight"] @ hidden + weights["return_head.bias"])[0])


def test_forward_equals_the_lstm_equations() -> None:
    """Logits and return of each window agree with the equations stepped in NumPy."""
    model = LstmMtl(13, ModelConfig(), generator=torch.Generator().manual_seed(1)).eval()
    windows = np.random.default_rng(0).normal(size=(5, 32, 13)).astype(np.float32)
    with torch.inference_mode():
        logits, returns = model(torch.from_numpy(windows))
    for index, window in enumerate(windows):
        expected_logits, expected_return = numpy_forward(model, window)
        np.testing.assert_allclose(logits[index].numpy(), expected_logits, atol=1e-5)
        np.testing.assert_allclose(float(returns[index]), expected_return, atol=1e-5)


def test_parameters_have_the_cards_sizes_and_names() -> None:
    """One LSTM layer of 64 units and two linear heads: 4 x 64 x (64 + F + 2) + 65 x 4 parameters."""
    model = LstmMtl(13, ModelConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 4 * 64 * (64 + 13 + 2) + 65 * 4
    assert set(model.state_dict()) == {
        *(f"lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        *(f"{head}.{name}" for head in ("action_head", "return_head") for name in ("weight", "bias")),
    }


def test_dropout_masks_keep_the_mean_and_follow_the_generator() -> None:
    """Masks are 0 or 1 / (1 - rate), average 1, and repeat for the same seed."""
    config = ModelConfig(dropout=0.4)
    masks = draw_dropout_masks(2000, config, torch.Generator().manual_seed(5))
    again = draw_dropout_masks(2000, config, torch.Generator().manual_seed(5))
    assert torch.equal(masks, again)
    assert sorted(set(masks.unique().tolist())) == [0.0, np.float32(1 / 0.6)]
    assert abs(float(masks.mean()) - 1.0) < 0.01
    assert draw_dropout_masks(10, ModelConfig(dropout=0.0), torch.Generator()).eq(1).all()
