"""What a configuration means, in words a reader of the report understands."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from b3dist.config import Config, setting_types
from b3dist.errors import ConfigError

NOTHING = "\N{EN DASH}"
"""What stands where a value is missing."""


class Words(NamedTuple):
    """Parts of sentences; for a run without a readable configuration they stay general."""

    horizon: str
    labels: str
    """What buy, sell and hold mean."""
    split: str
    label_set: str
    feature_set: str


class Setting(NamedTuple):
    """One line of the configuration."""

    name: str
    value: str
    card: str
    """The model card's value where it differs, else empty."""


def describe(nested: Mapping[str, Any] | None) -> Words:
    """The words for a run's configuration (config.json's `config`)."""
    config = _config(nested)
    if config is None:
        return Words("n", "Buy, sell or hold by the run's label set.", "oldest first", NOTHING, NOTHING)
    data = config.data
    if data.label_set == "signal_cluster":
        labels = (
            "A rule on the next session's indicators (RSI, MACD, momentum, volume), not an outcome: about 99 of 100 "
            "windows are hold, so that a model that never says anything else looks almost perfect."
        )
    else:
        labels = (
            f"Buy or sell where the realised {data.horizon}-session return lies beyond {data.volatility_multiple:g} x "
            f"the {data.volatility_window}-session volatility x the square root of {data.horizon}; hold in between."
        )
    fractions = (data.train_fraction, data.validation_fraction, 1 - data.train_fraction - data.validation_fraction)
    shares = " / ".join(f"{100 * share:.0f}" for share in fractions)
    split = f"oldest first: {shares} % for training, validation and test"
    return Words(str(data.horizon), labels, split, data.label_set, data.feature_set)


def settings(nested: Mapping[str, Any] | None) -> list[Setting]:
    """Every setting of a run beside the card's value; one line per section if another version wrote it."""
    config, card = _config(nested), Config()
    if config is None:
        return [Setting(name, json.dumps(value), "") for name, value in (nested or {}).items()]
    lines = [(name, str(_value(config, name)), str(_value(card, name))) for name in setting_types()]
    return [Setting(name, value, usual if usual != value else "") for name, value, usual in lines]


def _config(nested: Mapping[str, Any] | None) -> Config | None:
    try:
        return Config.from_dict(nested) if nested else None
    except ConfigError:
        return None


def _value(config: Config, name: str) -> object:
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
