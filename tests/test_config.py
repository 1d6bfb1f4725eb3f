"""The configuration checks itself and is built from names."""

from datetime import date, datetime

import pytest

from b3dist.config import Config, DataConfig, setting_types
from b3dist.errors import ConfigError
from b3dist.recipes import RECIPES, recipe


def test_defaults_are_the_cards_values() -> None:
    """The default configuration is the documented model."""
    config = Config()
    assert (config.data.lookback, config.data.horizon, config.model.hidden_size, config.model.dropout) == (
        32,
        2,
        64,
        0.4,
    )
    assert (config.loss.gamma, config.loss.action_weight, config.loss.return_weight) == (3.0, 20.0, 50.0)
    training = config.training
    assert (training.epochs, training.batch_size, training.learning_rate, training.weight_decay) == (
        50,
        128,
        1e-3,
        1e-4,
    )
    assert (training.clip_norm, training.patience, training.min_delta) == (1.0, 20, 100.0)
    assert (training.scheduler_factor, training.scheduler_patience, training.min_learning_rate) == (0.5, 5, 1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_round_trip_through_plain_data(name: str) -> None:
    """to_dict and from_dict are inverse for every recipe, dates included."""
    config = recipe(name).replace_setting("data.to_session", "2018-12-28")
    assert Config.from_dict(config.to_dict()) == config
    assert config.data.to_session == date(2018, 12, 28)


def test_overrides_are_typed_and_the_last_wins() -> None:
    """Strings become the setting's type, later ones replace earlier ones."""
    config = Config().with_overrides(
        ["training.epochs=9", "training.epochs=3", "loss.class_weights=true", "loss.gamma=2"]
    )
    assert config.training.epochs == 3
    assert config.loss.class_weights is True
    assert config.loss.gamma == 2.0


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("training.epoch=3", "unknown setting 'training.epoch'", "training.epochs"),
        ("gamma=3", "unknown setting 'gamma'", "loss.gamma"),
        ("training.epochs", "expected section.field=value", "training.epochs=3"),
        ("training.epochs=2.5", "must be a whole number", ""),
        ("training.epochs=0", "at least 1", ""),
        ("loss.gamma=nan", "must be a number", ""),
        ("training.learning_rate=1e300", "must be a number", ""),
        ("model.dropout=1", "[0, 1)", ""),
        ("data.feature_set=v9", "must be one of v1, v2", ""),
        ("data.to_session=28/12/2018", "a date like", ""),
        ("loss.class_weights=maybe", "true or false", ""),
    ],
)
def test_bad_overrides_say_what_is_expected(override: str, message: str, hint: str) -> None:
    """A wrong override is refused with the valid name or value."""
    with pytest.raises(ConfigError) as caught:
        Config().with_overrides([override])
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_every_setting_is_documented() -> None:
    """One docstring per setting: the source holds as many as there are settings and sections."""
    import ast
    import inspect

    import b3dist.config as module

    documented = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            for field, text in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(field.target, ast.Name)
                ):
                    documented.add(field.target.id)
    assert {name.rpartition(".")[2] for name in setting_types()} <= documented


def test_a_date_with_a_time_is_refused() -> None:
    """YAML reads `2018-01-01T10:00:00` as one: config.json would hold what cannot be read back as a date."""
    with pytest.raises(ConfigError, match=r"must be a date like 2018-12-28, got '2018-01-01 10:00:00'"):
        Config.from_dict({"data": {"from_session": datetime(2018, 1, 1, 10)}})


def test_contradicting_sessions_are_refused() -> None:
    """from_session must lie before to_session."""
    with pytest.raises(ConfigError, match=r"before data\.to_session"):
        DataConfig(from_session=date(2018, 1, 2), to_session=date(2017, 1, 2))
