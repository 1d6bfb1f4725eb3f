"""The search space: the card in the middle, trial 0 exact, nothing that has no effect."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b3dist.config import Config
from b3dist.errors import ConfigError
from b3dist.recipes import outcome
from b3dist.tuning.space import ALWAYS, ON_REQUEST, search_space


def test_the_card_lies_in_the_middle_of_what_is_always_searched() -> None:
    """Gamma, both loss weights and dropout; the card's own values are half-way through each range."""
    space = search_space(Config())
    assert space.names == ("loss.gamma", "loss.action_weight", "loss.return_weight", "model.dropout")
    assert space.to_unit(space.start(Config())) == pytest.approx([0.5] * 4)


def test_trial_0_is_the_base_configuration_itself() -> None:
    """Applying the starting values changes nothing, whatever the recipe."""
    for base in (Config(), outcome().with_overrides(["loss.gamma=1.7", "model.hidden_size=48"])):
        space = search_space(base, ["model.hidden_size", "training.learning_rate", "data.lookback"])
        assert space.apply(base, space.start(base)) == base


@pytest.mark.parametrize("dimension", [*ALWAYS, *ON_REQUEST], ids=lambda one: one.name)
@given(place=st.floats(0, 1))
def test_every_place_is_a_valid_setting_and_comes_back(dimension: object, place: float) -> None:
    """from_unit gives a value the configuration takes; to_unit finds its place again, whole numbers up to rounding."""
    assert dimension in (*ALWAYS, *ON_REQUEST)
    value = dimension.from_unit(place)  # type: ignore[attr-defined]
    assert dimension.low <= value <= dimension.high  # type: ignore[attr-defined]
    Config().replace_setting(dimension.name, value)  # type: ignore[attr-defined]
    tolerance = 0.04 if dimension.whole else 1e-9  # type: ignore[attr-defined]
    assert dimension.to_unit(value) == pytest.approx(place, abs=tolerance)  # type: ignore[attr-defined]


def test_a_range_can_be_given() -> None:
    """Also for what is searched anyway; the order of settings stays."""
    space = search_space(Config(), ["training.learning_rate", "loss.gamma=1:4"])
    assert (space.dimensions[0].low, space.dimensions[0].high) == (1.0, 4.0)
    assert space.names[-1] == "training.learning_rate"


@pytest.mark.parametrize(
    ("requested", "said"),
    [
        ("learning_rat", "training.learning_rate"),
        ("loss.gamma=4", "cannot read the range"),
        ("loss.gamma=4:1", "in order"),
        ("loss.action_weight=0:4", "above 0"),
        ("data.volatility_multiple", "no effect"),
        ("model.dropout=0:5", "model.dropout must be in [0, 1), got 5.0"),
        ("loss.gamma=-5:6", "loss.gamma must be at least 0, got -5.0"),
        ("model.hidden_size=16:100000", "between 1 and 4096"),
        ("data.lookback=0.5:64", "data.lookback must be a whole number, got 0.5"),
        ("model.dropout=0:5", "--search model.dropout=0:0.8"),
    ],
)
def test_what_cannot_be_searched_is_refused(requested: str, said: str) -> None:
    """With the nearest name, or an example."""
    with pytest.raises(ConfigError) as caught:
        search_space(Config(), [requested])
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_a_setting_named_twice_is_refused() -> None:
    """Of two ranges one would be ignored."""
    with pytest.raises(ConfigError, match=r"--search names loss\.gamma twice"):
        search_space(Config(), ["loss.gamma=1:4", "training.learning_rate", "loss.gamma=2:5"])


def test_a_base_outside_the_range_is_refused_with_the_remedy() -> None:
    """Trial 0 must be a point of the space."""
    base = Config().with_overrides(["loss.gamma=9"])
    with pytest.raises(ConfigError, match="outside the range") as caught:
        search_space(base).start(base)
    assert "--search loss.gamma=LOW:HIGH" in caught.value.hint
