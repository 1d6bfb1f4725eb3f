"""A warm start predicts what its initial model predicts, never ends worse, and is not judged on what that has seen."""

import dataclasses
import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from b3dist.config import Config, DataConfig
from b3dist.data.features import BASIS_EXPONENTS, FEATURE_NAMES, Bars, compute_features
from b3dist.data.lake import Lake
from b3dist.data.pooled import load_pooled
from b3dist.data.windows import AssetData, prepare_asset
from b3dist.errors import ConfigError, InsufficientDataError
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.recipes import pooled
from b3dist.training.asset import load_asset, train_asset
from b3dist.training.bundle import read_bundle
from b3dist.training.pooled import PooledFitting
from b3dist.training.question import require_same_question
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.sampling import asset_generator
from b3dist.training.trainer import Fitting
from b3dist.training.warm_start import InitialModel, basis_change, starting_state, without_seen_windows
from tests.conftest import Columns, make_columns

SHORT = Config().with_overrides(["data.min_sessions=300", "training.epochs=2", "data.feature_set=v2"])


def prepare(columns: Columns, **changes: object) -> AssetData:
    config = DataConfig(**{"min_sessions": 100, **changes})  # type: ignore[arg-type]
    return prepare_asset("TEST3", columns, columns["session"], config)


def initial_of(data: AssetData, config: Config, *, seed: int = 4) -> InitialModel:
    """An untrained model with the scales of an asset: what matters here is only what it computes."""
    model = LstmMtl(data.features.shape[1], config.model, generator=asset_generator(seed, "ANY3"))
    return InitialModel(
        state=model.state_dict(),
        model_sha256="0" * 64,
        origin="run X, TEST3",
        config=config,
        scaler=data.scaler,
        return_target=ReturnTarget.fit(data.train.future_return, "standardised"),
        anchor=data.anchor,
        selectable_from=data.sessions[data.val.ends[0]].astype(object),
        testable_from=data.sessions[data.test.ends[0]].astype(object),
        trained_until=data.anchor,
    )


def outputs(state: dict[str, torch.Tensor], data: AssetData, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Logits and returns, in the trained unit, of the test windows."""
    model = LstmMtl(data.features.shape[1], config.model)
    model.load_state_dict(state)
    windows = torch.from_numpy(data.features[data.test.ends[:, None] - np.arange(31, -1, -1)])
    with torch.inference_mode():
        logits, returns = model(windows)
    return logits.numpy(), returns.double().numpy()


@pytest.mark.parametrize("feature_set", ["v1", "v2"])
@pytest.mark.parametrize("unit", ["standardised", "percent"])
def test_start_predicts_what_its_initial_model_predicts(feature_set: str, unit: str) -> None:
    """With a longer history, other scales, another unit and a split between the anchors: the same outputs."""
    columns = make_columns(700, seed=3)
    # 4:1 between the shorter history's anchor and the longer one's: before it, prices count a quarter.
    columns["adjustment"][300:] = 4.0
    for name in ("open", "high", "low", "close", "best_bid", "best_ask"):
        columns[name][300:] /= 4.0
    columns["quantity"][300:] *= 4.0
    config = Config(data=DataConfig(feature_set=feature_set, min_sessions=100))  # type: ignore[arg-type]
    before = prepare({name: values[:400] for name, values in columns.items()}, feature_set=feature_set)
    after = prepare(columns, feature_set=feature_set)
    assert before.anchor < columns["session"][300].item() < after.anchor
    initial = initial_of(before, config)
    target = ReturnTarget.fit(after.train.future_return, unit)  # type: ignore[arg-type]
    basis = 4.0  # a price at the initial model's anchor counts four times one at the later anchor
    state = starting_state(initial, after, target, basis=basis)
    # The same sessions, in each model's own inputs.
    shared = dataclasses.replace(before, test=before.test)
    rows = np.searchsorted(after.sessions, before.sessions[before.test.ends])
    moved = dataclasses.replace(after, test=dataclasses.replace(after.test, ends=rows))
    logits, returns = outputs(dict(initial.state), shared, config)
    new_logits, new_returns = outputs(state, moved, config)
    np.testing.assert_allclose(new_logits, logits, atol=2e-4)
    np.testing.assert_allclose(
        target.mean + target.scale * new_returns,
        initial.return_target.mean + initial.return_target.scale * returns,
        atol=1e-5,
    )


def test_features_move_with_the_price_basis_as_declared() -> None:
    """Every column of both sets scales with its exponent: prices with c, volumes with 1 / c, ratios not at all."""
    columns = make_columns(300, seed=8)
    ones = np.ones(300)
    for feature_set in ("v1", "v2"):
        plain = compute_features(Bars.adjusted(columns, ones), feature_set)  # type: ignore[arg-type]
        scaled = compute_features(Bars.adjusted(columns, 4.0 * ones), feature_set)  # type: ignore[arg-type]
        exponents = np.array([BASIS_EXPONENTS.get(name, 0) for name in FEATURE_NAMES[feature_set]])
        np.testing.assert_allclose(scaled, plain * 4.0**exponents, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def lake(small_lake: Path) -> Lake:
    return Lake(small_lake)


@pytest.fixture(scope="module")
def ticker(lake: Lake) -> str:
    """The asset with the longest history."""
    return str(lake.tickers().set_index("ticker")["num_sessions"].idxmax())


def read_initial(folder: Path) -> InitialModel:
    """An asset's own bundle as a start."""
    bundle = read_bundle(folder)
    return InitialModel.of_facts(
        bundle.facts,
        state=bundle.model.state_dict(),
        anchor=bundle.facts["anchor"],
        model_sha256=bundle.facts["model_sha256"],
        origin=f"run X, {folder.name}",
        scaler=bundle.scaler,
        return_target=bundle.return_target,
        trained_until=bundle.trained_until,
    )


def test_warm_start_never_ends_with_a_higher_validation_loss(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """The initial model counts as epoch 0 and is kept where training on only makes it worse; its origin is recorded."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first = train_asset(lake, ticker, SHORT.with_overrides(["training.epochs=12"]), tmp_path / "first")
    initial = read_initial(first.path)
    worse = SHORT.with_overrides(["training.learning_rate=0.3"])
    second = train_asset(lake, ticker, worse, tmp_path / "second", initial_models=lambda _ticker: initial)
    assert second.metrics["val_loss"] == pytest.approx(first.metrics["val_loss"], rel=1e-5)
    assert second.metrics["best_epoch"] == 0
    facts = json.loads((second.path / "bundle.json").read_text())
    assert facts["initial_model"]["model_sha256"] == initial.model_sha256
    assert facts["initial_model"]["origin"] == f"run X, {ticker}"
    assert facts["dropped_windows"]["seen_by_initial_model"] == 0, "the same split: nothing it has not seen is lost"


def test_a_start_scores_what_its_initial_model_scored(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """On the windows that the kept weights are judged on; a start kept as it came scores the same as what was kept."""
    first = train_asset(lake, ticker, SHORT, tmp_path)
    initial = read_initial(first.path)
    kept, better = SHORT.with_overrides(["training.learning_rate=0.3"]), SHORT.with_overrides(["training.epochs=3"])
    for config in (kept, better):
        folder = tmp_path / str(config.training.epochs)
        folder.mkdir()
        metrics = train_asset(lake, ticker, config, folder, initial_models=lambda _ticker: initial).metrics
        assert (metrics["best_epoch"] == 0) == (config is kept)
        for part in ("val", "test"):
            start, before, after = metrics["start"][part], first.metrics[part], metrics[part]
            assert start["num_windows"] == before["num_windows"] == after["num_windows"]
            assert start["confusion"] == before["confusion"]
            assert start["return"]["rmse"] == pytest.approx(before["return"]["rmse"], rel=1e-5)
            assert (start["return"] == after["return"]) == (config is kept)
    assert "start" not in first.metrics


def test_weights_say_whose_they_are_and_what_they_have_seen(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """A kept start is still its initial model's; trained on, it is the asset's own and has seen what both have."""
    first = train_asset(lake, ticker, SHORT, tmp_path)
    plain = read_bundle(first.path)
    assert plain.facts["source"] == "own"
    seen = plain.trained_until
    assert str(seen) == plain.facts["anchor"]
    kept, better = SHORT.with_overrides(["training.learning_rate=0.3"]), SHORT.with_overrides(["training.epochs=3"])
    for source in ("own", "pooled"):
        for days in (-40, 40):
            initial = dataclasses.replace(
                read_initial(first.path), source=source, trained_until=seen + timedelta(days=days)
            )
            for config in (kept, better):
                folder = tmp_path / f"{source}{days}{config.training.epochs}"
                folder.mkdir()
                again = train_asset(lake, ticker, config, folder, initial_models=lambda _ticker, begun=initial: begun)
                bundle = read_bundle(again.path)
                if config is kept:
                    assert again.metrics["best_epoch"] == 0
                    assert (bundle.facts["source"], bundle.trained_until) == (source, initial.trained_until)
                else:
                    assert again.metrics["best_epoch"] > 0
                    assert (bundle.facts["source"], bundle.trained_until) == ("own", max(seen, initial.trained_until))
                assert bundle.facts["initial_model"]["source"] == source


def test_what_an_initial_model_began_from_counts_as_seen(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """Also where a start was given an earlier calendar cut than the model before it had."""
    first = train_asset(lake, ticker, SHORT, tmp_path)
    parts = read_bundle(first.path).facts["splits"]
    middle = tmp_path / "middle"
    middle.mkdir()
    earlier = [date.fromisoformat(parts[name]["first"]) - timedelta(days=60) for name in ("val", "test")]
    cut = SHORT.with_overrides([f"data.validation_from={earlier[0]}", f"data.test_from={earlier[1]}"])
    begun = read_initial(first.path)
    second = train_asset(lake, ticker, cut, middle, initial_models=lambda _ticker: begun)
    chained = read_initial(second.path)
    assert chained.selectable_from == date.fromisoformat(parts["val"]["first"])
    assert chained.testable_from == date.fromisoformat(parts["test"]["first"])


def test_asset_without_an_initial_model_trains_from_scratch(lake: Lake, ticker: str, tmp_path: Path) -> None:
    """To the bit as if nothing had been asked for."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "warm").mkdir()
    plain = train_asset(lake, ticker, SHORT, tmp_path / "plain")
    warm = train_asset(lake, ticker, SHORT, tmp_path / "warm", initial_models=lambda _ticker: None)
    assert (plain.path / "model.pt").read_bytes() == (warm.path / "model.pt").read_bytes()
    assert (plain.path / "bundle.json").read_bytes() == (warm.path / "bundle.json").read_bytes()


def test_nothing_is_judged_on_what_the_initial_model_has_seen() -> None:
    """Validation windows before its validation part are dropped, and test windows before its test part."""
    data = prepare(make_columns(500))
    sessions = data.sessions
    first_val, first_test = sessions[data.val.ends[10]], sessions[data.test.ends[7]]
    initial = dataclasses.replace(
        initial_of(data, Config()),
        selectable_from=first_val.astype(object),
        testable_from=first_test.astype(object),
    )
    kept = without_seen_windows(data, initial)
    assert sessions[kept.val.ends[0]] == first_val
    assert sessions[kept.test.ends[0]] == first_test
    assert kept.dropped["seen_by_initial_model"] == 17
    np.testing.assert_array_equal(kept.test.future_return, data.test.future_return[7:])
    np.testing.assert_array_equal(kept.train.ends, data.train.ends)
    later = dataclasses.replace(initial, testable_from=date(2099, 1, 1))
    with pytest.raises(InsufficientDataError, match="no window to be judged by"):
        without_seen_windows(data, later)


def test_assets_started_from_a_pooled_model_keep_its_cut(lake: Lake, tmp_path: Path) -> None:
    """Under the pooled cut no asset is tested on a session that any asset's training has reached."""
    config = pooled().with_overrides(["training.epochs=1", "training.batch_size=128"])
    data = load_pooled(lake, lake.tickers()["ticker"], config.data)
    assert data.config.test_from is not None
    fitting = PooledFitting(data, config)
    next(fitting.epochs())
    cut = dataclasses.replace(config, data=data.config)
    own_fractions = dataclasses.replace(
        cut, data=dataclasses.replace(data.config, validation_from=None, test_from=None)
    )
    borders = set()
    for asset in data.assets:
        initial = InitialModel(
            state=fitting.model.state_dict(),
            model_sha256="0" * 64,
            origin="run P, pooled",
            config=cut,
            scaler=asset.scaler,
            return_target=ReturnTarget(unit="fraction", mean=0.0, scale=1.0),
            anchor=None,
            selectable_from=data.config.validation_from,  # type: ignore[arg-type]
            testable_from=data.config.test_from,
            trained_until=data.config.validation_from - timedelta(days=1),  # type: ignore[operator]
            source="pooled",
        )
        alone = load_asset(lake, asset.ticker, cut)
        np.testing.assert_array_equal(alone.test.ends, asset.test.ends)
        np.testing.assert_array_equal(alone.features, asset.features)
        assert without_seen_windows(alone, initial).dropped["seen_by_initial_model"] == 0
        judged = without_seen_windows(load_asset(lake, asset.ticker, own_fractions), initial)
        borders.add(judged.dropped["seen_by_initial_model"] > 0)
        assert judged.sessions[judged.test.ends[0]] >= np.datetime64(data.config.test_from)
        assert judged.sessions[judged.val.ends[0]] >= np.datetime64(data.config.validation_from)
        assert basis_change(lake, alone, initial) == 1.0
    assert True in borders, "with cuts of their own some assets would have been tested on what the model has seen"


def test_start_is_epoch_zero(lake: Lake, ticker: str) -> None:
    """Before the first step the kept weights and the validation loss are the start's."""
    data = load_asset(lake, ticker, SHORT)
    initial = initial_of(data, SHORT)
    fitting = Fitting(data, SHORT, torch.device("cpu"), start=dict(initial.state))
    assert fitting.best_epoch == 0
    assert np.isfinite(fitting.best_loss)
    for name, value in fitting.model.state_dict().items():
        assert torch.equal(value, initial.state[name])


def test_another_question_is_refused_by_name() -> None:
    """Features, labels, lookback, horizon and size must agree; the rest may differ."""
    require_same_question(Config(), Config().with_overrides(["training.epochs=3", "loss.gamma=1", "model.dropout=0.1"]))
    with pytest.raises(ConfigError, match=r"data.feature_set was 'v1', is 'v2'.*model.hidden_size was 64, is 32"):
        require_same_question(Config(), Config().with_overrides(["data.feature_set=v2", "model.hidden_size=32"]))
