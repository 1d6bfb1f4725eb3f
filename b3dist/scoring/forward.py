"""The forward pass of many models at once: any mixture of their windows in one batched pass.

Measured on one core (hidden size 64, 32 steps): a pass over 105 models with a window each takes 5 ms, of which nearly
all is reading the recurrent weights 32 times; the same as a loop of nn.LSTM takes 10 ms. From a few windows per model
on the plain layer is faster per window, since its cell is one fused kernel.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from b3dist.model.stacked import Weights

FEW_MODELS: Final = 4
"""Up to so many models are run one by one: 0.09 ms each, against 0.4 ms for the smallest stack."""
BLOCK_BYTES: Final = 8 * 2**20
"""Recurrent weights that one block of a stack reads over and over: they should stay in the processor's cache."""
WINDOWS_AT_ONCE: Final = 128
"""Windows per call of the plain layer: its throughput peaks at 64 to 256."""

_INPUT, _RECURRENT = "lstm.weight_ih_l0", "lstm.weight_hh_l0"
_BIASES = ("lstm.bias_ih_l0", "lstm.bias_hh_l0")


class StackedModels:
    """K networks of one shape, their weights laid out for inference; safe to use from several threads.

    Call it in torch.inference_mode().

    Args:
        weights: names of the plain state_dict, each tensor (K, *shape).
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.hidden_size = weights[_RECURRENT].shape[2]
        # One sigmoid over three neighbouring gates: PyTorch's order i, f, g, o becomes i, f, o, g.
        self._recurrent = _output_gate_third(weights[_RECURRENT]).transpose(1, 2).contiguous()  # (K, H, 4H)
        self._input = _output_gate_third(weights[_INPUT]).transpose(1, 2).contiguous()  # (K, F, 4H)
        self._bias = _output_gate_third(weights[_BIASES[0]] + weights[_BIASES[1]])[:, None]  # (K, 1, 4H)
        heads = [weights["action_head.weight"], weights["return_head.weight"]]
        self._heads = torch.cat(heads, dim=1).transpose(1, 2).contiguous()  # (K, H, 3 + 1)
        self._head_bias = torch.cat([weights["action_head.bias"], weights["return_head.bias"]], dim=1)  # (K, 3 + 1)

    def __len__(self) -> int:
        return len(self._recurrent)

    def outputs(self, slots: npt.NDArray[np.int64], windows: Tensor) -> Tensor:
        """Logits and return of every window by its own model, dropout off, in the order given: (N, 3 + 1).

        Models asked about one window each are run as one stack; a model asked about several runs them as one batch.

        Args:
            slots: (N,) the model of each window.
            windows: (N, lookback, F) float32 z-scores.
        """
        result = torch.empty(len(slots), self._head_bias.shape[1])
        models, first, counts = np.unique(slots, return_index=True, return_counts=True)
        alone = counts == 1
        if int(alone.sum()) <= FEW_MODELS:
            alone[:] = False
        if alone.any():
            rows = torch.from_numpy(first[alone])
            result[rows] = self._one_window_each(models[alone], windows[rows])
        for slot in models[~alone].tolist():
            rows = torch.from_numpy(np.flatnonzero(slots == slot))
            result[rows] = self.of_one(slot, windows, rows)
        return result

    def of_one(self, slot: int, windows: Tensor, rows: Tensor) -> Tensor:
        """Logits and return of one model for windows[rows], copied WINDOWS_AT_ONCE at a time: (n, 3 + 1).

        Args:
            slot: the model.
            windows: (any, lookback, F) float32 z-scores; they may overlap in memory.
            rows: (n,) which of them.
        """
        names = (_INPUT, _RECURRENT, *_BIASES)
        layer = [self.weights[name][slot] for name in names]
        parts = []
        for part in torch.split(rows, WINDOWS_AT_ONCE):
            start = torch.zeros(1, len(part), self.hidden_size)
            _, hidden, _ = torch.lstm(windows[part], (start, start), layer, True, 1, 0.0, False, False, True)
            parts.append(torch.addmm(self._head_bias[slot], hidden[0], self._heads[slot]))
        return torch.cat(parts)

    def _one_window_each(self, slots: npt.NDArray[np.int64], windows: Tensor) -> Tensor:
        """Logits and return of window n by model slots[n]; slots ascending and distinct: (N, 3 + 1)."""
        per_block = max(BLOCK_BYTES // (self._recurrent[0].numel() * 4), 1)
        parts = []
        for begin in range(0, len(slots), per_block):
            block = slots[begin : begin + per_block]
            first, last = int(block[0]), int(block[-1])
            neighbours = last - first + 1 == len(block)
            # Neighbouring models are a view of the stack: nothing is copied when the whole exchange is asked for.
            which = slice(first, last + 1) if neighbours else torch.from_numpy(block)
            hidden = self._last_hidden(which, windows[begin : begin + per_block])
            parts.append(torch.baddbmm(self._head_bias[which][:, None], hidden, self._heads[which])[:, 0])
        return torch.cat(parts)

    def _last_hidden(self, which: slice | Tensor, windows: Tensor) -> Tensor:
        """Hidden state (k, 1, H) after the last step of one window (k, lookback, F) per model."""
        size = self.hidden_size
        recurrent = self._recurrent[which]
        projected = torch.baddbmm(self._bias[which], windows, self._input[which])  # (k, lookback, 4H)
        gates = torch.empty(len(windows), 1, 4 * size)
        write, forget, output, value = gates.chunk(4, dim=2)
        openings = gates[..., : 3 * size]
        cell, hidden = torch.zeros(len(windows), 1, size), torch.zeros(len(windows), 1, size)
        for step in range(windows.shape[1]):
            torch.baddbmm(projected[:, step : step + 1], hidden, recurrent, out=gates)
            openings.sigmoid_()
            value.tanh_()
            cell.mul_(forget).addcmul_(write, value)
            torch.tanh(cell, out=hidden)
            hidden.mul_(output)
        return hidden


def _output_gate_third(stack: Tensor) -> Tensor:
    """A stack (K, 4H, ...) with its gates i, f, g, o in the order i, f, o, g."""
    write, forget, value, output = stack.chunk(4, dim=1)
    return torch.cat([write, forget, output, value], dim=1)
