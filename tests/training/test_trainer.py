"""The trainer is the card's procedure: equal to a plain PyTorch loop, deterministic, honest about the best epoch."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from b3dist.config import Config
from b3dist.data.windows import AssetData, prepare_asset
from b3dist.errors import TrainingError
from b3dist.model.losses import focal_loss
from b3dist.model.lstm_mtl import LstmMtl, draw_dropout_masks
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.sampling import asset_generator, draw_epoch, sampling_weights
from b3dist.training.trainer import Fitting, fit_asset
from tests.conftest import make_columns


def make_asset(config: Config, *, rows: int = 300, seed: int = 0) -> AssetData:
    columns = make_columns(rows, seed=seed)
    return prepare_asset("TEST3", columns, columns["session"], config.data)


def config_of(*overrides: str) -> Config:
    return Config().with_overrides(
        ["data.min_sessions=100", "training.epochs=3", "data.label_set=forward_return", *overrides]
    )


def plain_loop(data: AssetData, config: Config) -> dict[str, torch.Tensor]:
    """The card's training written the usual way: separate parameters, plain Adam, windows copied out."""
    generator = asset_generator(config.seed, data.ticker)
    model = LstmMtl(13, config.model, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    windows = torch.stack([torch.from_numpy(data.features[end - 31 : end + 1]) for end in data.train.ends])
    action = torch.from_numpy(data.train.action)
    returns = data.train.future_return
    target = torch.from_numpy(((returns - returns.mean()) / returns.std()).astype(np.float32))
    weights = sampling_weights(action, "balanced")
    for _ in range(config.training.epochs):
        drawn = draw_epoch(weights, "balanced", generator)
        masks = draw_dropout_masks(len(drawn), config.model, generator)
        for start in range(0, len(drawn), 128):
            batch = drawn[start : start + 128]
            hidden = model.lstm(windows[batch])[0][:, -1] * masks[start : start + 128]
            logits, predicted = model.action_head(hidden), model.return_head(hidden).squeeze(1)
            squared = (predicted - target[batch]).square() * (weights.mean() / weights[batch]).float()
            loss = 20 * focal_loss(logits, action[batch], gamma=3.0).mean() + 50 * squared.mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return model.state_dict()


def test_training_equals_a_plain_loop() -> None:
    """After three epochs the flat-buffer trainer has the weights of an ordinary PyTorch loop, within float error."""
    config = config_of()
    data = make_asset(config)
    fit = fit_asset(data, config_of("training.min_delta=0"))
    if fit.best_epoch != 3:
        pytest.fail("the comparison needs the last epoch to be the best; choose another seed")
    for name, expected in plain_loop(data, config).items():
        torch.testing.assert_close(fit.model.state_dict()[name], expected, atol=2e-5, rtol=0)


def test_same_seed_same_bits_another_seed_not() -> None:
    """Two fits agree to the bit; another seed gives other weights."""
    config = config_of()
    data = make_asset(config)
    first, second, other = (fit_asset(data, dataclasses.replace(config, seed=seed)) for seed in (0, 0, 1))
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
    assert not torch.equal(first.model.state_dict()["lstm.weight_hh_l0"], other.model.state_dict()["lstm.weight_hh_l0"])


def test_the_kept_epoch_has_the_lowest_validation_loss() -> None:
    """min_delta rules patience only: with the card's 100, training ends at epoch 21 and keeps the lowest loss."""
    config = config_of("training.epochs=50")
    fit = fit_asset(make_asset(config), config)
    losses = [record.val_loss for record in fit.history]
    assert len(losses) == 21
    assert fit.val_loss == min(losses)
    assert losses.index(min(losses)) + 1 == fit.best_epoch


@pytest.mark.parametrize("classes", [(2,), (0, 2), (1, 2)])
def test_missing_classes_neither_crash_nor_bias(classes: tuple[int, ...]) -> None:
    """A training part without buys or sells trains, and never prefers a class that is not there."""
    config = config_of("loss.class_weights=true", "training.epochs=8")
    data = make_asset(config)
    parts = {
        name: dataclasses.replace(part, action=np.asarray(classes)[np.arange(len(part)) % len(classes)])
        for name, part in (("train", data.train), ("val", data.val))
    }
    data = dataclasses.replace(data, **parts)
    fit = fit_asset(data, config)
    assert math.isfinite(fit.val_loss)
    rows = torch.from_numpy(data.features)
    starts = torch.from_numpy(data.train.ends - 31)
    with torch.inference_mode():
        logits, _ = fit.model(rows[starts[:, None] + torch.arange(32)])
    assert set(logits.argmax(dim=1).tolist()) <= set(classes)


def test_divergence_is_an_error_naming_the_epoch() -> None:
    """A learning rate that blows the weights up ends in TrainingError, not in NaN metrics."""
    config = config_of("training.learning_rate=1e30", "training.clip_norm=1e30")
    with pytest.raises(TrainingError, match=r"TEST3 diverged at epoch 1"):
        fit_asset(make_asset(config), config)


@pytest.mark.parametrize("unit", ["fraction", "percent", "standardised"])
def test_return_units_are_undone(unit: str) -> None:
    """Encoding and decoding returns is the identity; percent is a hundredfold."""
    returns = np.random.default_rng(0).normal(0.001, 0.03, 500)
    target = ReturnTarget.fit(returns, unit)  # type: ignore[arg-type]
    encoded = target.encode(returns)
    np.testing.assert_allclose(target.decode(torch.from_numpy(encoded)).numpy(), returns, atol=1e-15)
    expected = {"fraction": returns.std(), "percent": 100 * returns.std(), "standardised": 1.0}[unit]
    assert encoded.std() == pytest.approx(expected)


def test_assets_advanced_side_by_side_get_the_weights_they_get_alone() -> None:
    """A sweep's trial trains its assets an epoch at a time: not a bit may depend on what is trained in between."""
    config = config_of("training.patience=2", "training.epochs=5")
    assets = [make_asset(config, seed=seed) for seed in (1, 2)]
    fittings = [Fitting(data, config, torch.device("cpu")) for data in assets]
    while not all(fitting.finished for fitting in fittings):
        for fitting in fittings:
            if not fitting.finished:
                fitting.advance()
    for data, fitting in zip(assets, fittings, strict=True):
        alone, together = fit_asset(data, config), fitting.finish()
        assert (together.history, together.best_epoch) == (alone.history, alone.best_epoch)
        for name, tensor in alone.model.state_dict().items():
            assert torch.equal(together.model.state_dict()[name], tensor)
