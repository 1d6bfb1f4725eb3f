"""What the stack's tests share: small assets of chosen lengths, and training one of them the plain way."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from b3dist.config import Config
from b3dist.data.windows import AssetData, prepare_asset
from b3dist.model.lstm_mtl import ABSENT_LOGIT, draw_dropout_masks
from b3dist.training.fused_data import StackMember
from b3dist.training.precision import matmul_precision
from b3dist.training.sampling import asset_generator, draw_epoch
from tests.conftest import make_columns

CARD = ("data.min_sessions=100", "data.label_set=forward_return")
"""The card's shapes: 32 x 13 windows, 64 units, 128 windows a step."""
SMALL = (*CARD, "data.lookback=8", "model.hidden_size=16", "training.batch_size=32")
"""The same arithmetic at an eighth of the cost."""


def config_of(*overrides: str) -> Config:
    """The card with overrides."""
    return Config().with_overrides(overrides)


def make_asset(config: Config, *, rows: int = 300, seed: int = 0) -> AssetData:
    """A random walk called TST<seed>."""
    columns = make_columns(rows, seed=seed)
    return prepare_asset(f"TST{seed}", columns, columns["session"], config.data)


def make_members(number: int, *overrides: str, lengths: tuple[int, ...] = (300,), first: int = 0) -> list[StackMember]:
    """Assets of the given numbers of sessions in turn, under one configuration."""
    config = config_of(*overrides)
    return [
        StackMember(data=make_asset(config, rows=lengths[seed % len(lengths)], seed=seed), config=config)
        for seed in range(first, first + number)
    ]


def with_actions(member: StackMember, classes: tuple[int, ...]) -> StackMember:
    """The member with these actions only, in turn."""
    parts = {
        name: dataclasses.replace(part, action=np.asarray(classes)[np.arange(len(part)) % len(classes)])
        for name, part in (("train", member.data.train), ("val", member.data.val))
    }
    return dataclasses.replace(member, data=dataclasses.replace(member.data, **parts))


class PlainNetwork(nn.Module):
    """The card's network as anybody would write it."""

    def __init__(self, num_features: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(num_features, hidden_size, batch_first=True)
        self.action_head = nn.Linear(hidden_size, 3)
        self.return_head = nn.Linear(hidden_size, 1)

    def forward(self, windows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and returns with a dropout mask on the last hidden state."""
        hidden = self.lstm(windows)[0][:, -1] * mask
        return self.action_head(hidden), self.return_head(hidden)[:, 0]


@matmul_precision("fp32")  # on a GPU nn.LSTM would multiply in TF32 by default
def train_plainly(member: StackMember, epochs: int, *, device: str, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """Weights after some epochs of nn.LSTM, autograd, torch.optim.Adam, ReduceLROnPlateau left out.

    Loss, class frequencies and inverse sampling probabilities are written out here, not taken from the package; only
    the draws are, which both must share.
    """
    config, data = member.config, member.data
    training, loss = config.training, config.loss
    generator = asset_generator(config.seed, data.ticker)
    network = PlainNetwork(data.features.shape[1], config.model.hidden_size)
    for parameter in network.parameters():
        nn.init.uniform_(
            parameter, -(config.model.hidden_size**-0.5), config.model.hidden_size**-0.5, generator=generator
        )
    counts = np.bincount(data.train.action, minlength=3)
    with torch.no_grad():
        network.action_head.bias[torch.from_numpy(counts == 0)] = ABSENT_LOGIT
    network.to(device, dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    lookback = config.data.lookback
    windows = torch.stack([torch.from_numpy(data.features[e - lookback + 1 : e + 1]) for e in data.train.ends])
    windows, action = windows.to(device, dtype), torch.from_numpy(data.train.action).to(device)
    returns = data.train.future_return
    target = torch.from_numpy(((returns - returns.mean()) / returns.std()).astype(np.float32)).to(device, dtype)
    frequency = np.where(counts > 0, counts.sum() / (np.maximum(counts, 1) * (counts > 0).sum()), 0.0)
    frequency = frequency.astype(np.float32).astype(np.float64)
    sampling = frequency[data.train.action] if training.sampler == "balanced" else np.ones(len(action))
    class_weight = torch.from_numpy(frequency).to(device, dtype) if loss.class_weights else torch.ones(3).to(action)
    importance = (
        (sampling.mean() / sampling).astype(np.float32) if loss.return_weighting == "uniform" else 1 + 0 * sampling
    )
    importance = torch.from_numpy(importance).to(device, dtype)
    for _ in range(epochs):
        drawn = draw_epoch(torch.from_numpy(sampling), training.sampler, generator)
        masks = draw_dropout_masks(len(drawn), config.model, generator).to(device, dtype)
        drawn = drawn.to(device)
        for start in range(0, len(drawn), training.batch_size):
            batch = drawn[start : start + training.batch_size]
            logits, predicted = network(windows[batch], masks[start : start + training.batch_size])
            true = torch.softmax(logits, dim=1).gather(1, action[batch, None])[:, 0]
            focal = -class_weight[action[batch]] * (1 - true) ** loss.gamma * true.log()
            squared = importance[batch] * (predicted - target[batch]) ** 2
            total = loss.action_weight * focal.mean() + loss.return_weight * squared.mean()
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm)
            optimizer.step()
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}
