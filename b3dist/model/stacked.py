"""K networks of one shape as one: their weights side by side, one batched matrix product where each would have its own.

A slot k of the stack computes what `b3dist.model.lstm_mtl` computes with the weights of slot k.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

LSTM_NAMES = ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0")

Weights = Mapping[str, Tensor]
"""Names of the plain network's state_dict; a stack's tensors have a leading K."""


def stack_states(states: Sequence[Weights]) -> dict[str, Tensor]:
    """The weights of K networks of one shape side by side: each tensor (K, *shape)."""
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def stacked_forward(weights: Weights, windows: Tensor, dropout_masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Action logits and returns of K networks, each on its own windows.

    Args:
        weights: as `stack_states` makes them.
        windows: (K, B, lookback, F) z-scores.
        dropout_masks: (K, B, hidden size), 0 or 1 / (1 - rate); None at evaluation.

    Returns:
        Logits (K, B, 3), and returns (K, B), each in the unit its model was trained in.
    """
    num_models, num_windows, lookback, num_features = windows.shape
    recurrent = weights["lstm.weight_hh_l0"].transpose(1, 2)  # (K, H, 4H)
    bias = (weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"])[:, None]
    flat = windows.reshape(num_models, num_windows * lookback, num_features)
    projected = torch.baddbmm(bias, flat, weights["lstm.weight_ih_l0"].transpose(1, 2))
    projected = projected.view(num_models, num_windows, lookback, -1)
    hidden = windows.new_zeros(num_models, num_windows, recurrent.shape[1])
    cell = torch.zeros_like(hidden)
    for step in range(lookback):
        gates = torch.baddbmm(projected[:, :, step], hidden, recurrent)
        write, forget, value, output = gates.chunk(4, dim=2)  # PyTorch's order: i, f, g, o
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(write) * torch.tanh(value)
        hidden = torch.sigmoid(output) * torch.tanh(cell)
    if dropout_masks is not None:
        hidden = hidden * dropout_masks
    return apply_heads(weights, hidden)


def apply_heads(weights: Weights, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (K, B, 3) and returns (K, B) of each network's last hidden states (K, B, H), dropout applied."""
    # One product for both heads: with one column alone, a library may take another kernel for one model than for many.
    weight = torch.cat([weights["action_head.weight"], weights["return_head.weight"]], dim=1)
    bias = torch.cat([weights["action_head.bias"], weights["return_head.bias"]], dim=1)
    outputs = torch.baddbmm(bias[:, None], hidden, weight.transpose(1, 2))
    return outputs[:, :, :-1], outputs[:, :, -1]
