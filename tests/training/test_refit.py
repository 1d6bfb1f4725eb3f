"""A refit is the evaluated training repeated on all rows: as many epochs, the same rates, nothing held back."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from b3dist.config import Config
from b3dist.data.windows import AssetData, prepare_asset
from b3dist.errors import InsufficientDataError, TrainingError
from b3dist.training.refit import prepare_whole, refit_asset
from b3dist.training.trainer import fit_asset

CONFIG = Config().with_overrides(
    ["data.min_sessions=100", "model.hidden_size=8", "training.epochs=3", "data.label_set=forward_return"]
)
Columns = dict[str, np.ndarray]


def whole(columns: Columns) -> AssetData:
    return prepare_whole("PETR4", columns, columns["session"], CONFIG.data)


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    return all(torch.equal(left.state_dict()[name], tensor) for name, tensor in right.state_dict().items())


def test_every_row_is_used(asset_columns: Callable[..., Columns]) -> None:
    """The training part holds every usable window; anchor, scaler and return target are of all rows."""
    columns = asset_columns(300)
    split, data = prepare_asset("PETR4", columns, columns["session"], CONFIG.data), whole(columns)
    parts = [split.train, split.val, split.test]
    assert len(data.train) == sum(map(len, parts)) + split.dropped["purge"]
    assert data.train.ends[-1] == len(columns["session"]) - 1 - CONFIG.data.horizon
    assert (len(data.val), len(data.test), data.dropped["purge"]) == (0, 0, 0)
    assert np.datetime64(data.anchor) == columns["session"][-1]
    np.testing.assert_allclose(data.features[19:].mean(axis=0), 0, atol=1e-5)
    refit = refit_asset(data, CONFIG, [1e-3])
    assert refit.return_target.mean == data.train.future_return.mean()
    assert refit.anchor == data.anchor


def test_a_refit_on_the_training_part_is_the_evaluated_model(asset_columns: Callable[..., Columns]) -> None:
    """Given the data and rates of the evaluated training, the refit arrives at its very bits."""
    columns = asset_columns(300)
    data = prepare_asset("PETR4", columns, columns["session"], CONFIG.data)
    fit = fit_asset(data, CONFIG)
    rates = [record.learning_rate for record in fit.history[: fit.best_epoch]]
    refit = refit_asset(data, CONFIG, rates)
    assert same(refit.model, fit.model)
    assert refit.train_loss == fit.train_loss


def test_a_warm_started_refit_begins_where_the_evaluated_model_began(asset_columns: Callable[..., Columns]) -> None:
    """From given weights too it arrives at the evaluated model's bits; without an epoch it is the weights given."""
    columns = asset_columns(300)
    data = prepare_asset("PETR4", columns, columns["session"], CONFIG.data)
    start = fit_asset(data, CONFIG.replace_setting("seed", 9)).model.state_dict()
    fit = fit_asset(data, CONFIG, start=start)
    rates = [record.learning_rate for record in fit.history[: fit.best_epoch]]
    assert same(refit_asset(data, CONFIG, rates, start=start).model, fit.model)
    assert fit.best_epoch > 0
    assert not same(refit_asset(data, CONFIG, rates).model, fit.model)
    untrained = refit_asset(data, CONFIG, [], start=start).model.state_dict()
    assert all(torch.equal(untrained[name], tensor) for name, tensor in start.items())


def test_the_learning_rates_are_replayed(asset_columns: Callable[..., Columns]) -> None:
    """The same rates give the same bits, another rate in the last epoch others."""
    data = whole(asset_columns(300))
    first, again = (refit_asset(data, CONFIG, [1e-3, 1e-3]).model for _ in range(2))
    assert same(first, again)
    assert not same(first, refit_asset(data, CONFIG, [1e-3, 5e-4]).model)
    assert not same(first, refit_asset(data, CONFIG, [1e-3]).model)


def test_bad_data_are_refused(asset_columns: Callable[..., Columns]) -> None:
    """Too short a history, a price that stands still, and a loss that diverges each say so."""
    with pytest.raises(InsufficientDataError, match="PETR4 has 90 sessions, expected at least 100"):
        whole(asset_columns(90))
    still = asset_columns(300)
    for name in ("open", "high", "low", "close"):
        still[name] = np.full(300, 10.0)
    with pytest.raises(InsufficientDataError, match="never moves"):
        whole(still)
    sparse = asset_columns(300)
    calendar = np.arange("2000-01-03", "2026-01-02", dtype="datetime64[D]")
    sparse["session"] = calendar[::30][:300]
    with pytest.raises(InsufficientDataError, match="no usable window"):
        prepare_whole("PETR4", sparse, calendar, CONFIG.data)
    with pytest.raises(TrainingError, match="PETR4 diverged at epoch 1 of its refit"):
        refit_asset(whole(asset_columns(300)), CONFIG, [1e30, 1e-3])
