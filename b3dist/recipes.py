"""Named complete configurations."""

from collections.abc import Callable

from b3dist.config import Config, DataConfig, TrainingConfig
from b3dist.errors import ConfigError


def card() -> Config:
    """The model card's values: feature set v1, label set signal_cluster, 50 epochs at most."""
    return Config()


def outcome() -> Config:
    """What a strategy would be judged by: labels from the realised return, scale-free features, patience that works."""
    return Config(
        data=DataConfig(feature_set="v2", label_set="forward_return"),
        training=TrainingConfig(min_delta=0.0),
    )


def smoke() -> Config:
    """A few seconds per asset: three epochs of the card on histories of 300 sessions or more."""
    return Config(data=DataConfig(min_sessions=300), training=TrainingConfig(epochs=3))


def pooled() -> Config:
    """One model over all assets: the card's, but with features that compare across assets and larger batches."""
    return Config(
        data=DataConfig(feature_set="v2", min_sessions=250),
        training=TrainingConfig(batch_size=512),
    )


RECIPES: dict[str, Callable[[], Config]] = {"card": card, "outcome": outcome, "smoke": smoke, "pooled": pooled}


def recipe(name: str) -> Config:
    """The configuration called `name`.

    Raises:
        ConfigError: no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}", hint=f"recipes: {', '.join(RECIPES)}")
    return RECIPES[name]()
