"""What a sweep may change: settings of a configuration, each within a range around the card's value."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from b3dist.config import Config
from b3dist.errors import ConfigError

Params = dict[str, float]
"""Values by the settings' dotted names."""
Point = npt.NDArray[np.float64]
"""(dimensions,) in [0, 1]: each value's place in its range."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One setting and its range, both ends included."""

    name: str
    """section.field of Config."""
    low: float
    high: float
    log: bool = False
    """Searched on a logarithmic scale."""
    whole: bool = False
    """Whole numbers only."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"the range of {self.name} must be low:high in order, got {self.low:g}:{self.high:g}")
        if self.log and self.low <= 0:
            raise ConfigError(f"the range of {self.name} must begin above 0, got {self.low:g}:{self.high:g}")

    def to_unit(self, value: float) -> float:
        """Where in its range a value lies, 0 to 1."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (value - low) / (high - low)

    def from_unit(self, place: float) -> float:
        """The value at a place in the range."""
        low, high = (math.log(x) if self.log else x for x in (self.low, self.high))
        value = low + min(max(place, 0.0), 1.0) * (high - low)
        value = min(max(math.exp(value) if self.log else value, self.low), self.high)
        return float(round(value)) if self.whole else value


ALWAYS: Final = (
    Dimension(name="loss.gamma", low=0.0, high=6.0),
    Dimension(name="loss.action_weight", low=2.0, high=200.0, log=True),
    Dimension(name="loss.return_weight", low=5.0, high=500.0, log=True),
    Dimension(name="model.dropout", low=0.0, high=0.8),
)
"""The card's values (3, 20, 50, 0.4) are the middle of each."""
ON_REQUEST: Final = (
    Dimension(name="training.learning_rate", low=1e-4, high=1e-2, log=True),
    Dimension(name="training.weight_decay", low=1e-5, high=1e-3, log=True),
    Dimension(name="model.hidden_size", low=16, high=256, log=True, whole=True),
    Dimension(name="data.lookback", low=16, high=64, log=True, whole=True),
    Dimension(name="data.volatility_multiple", low=0.5, high=2.0, log=True),
)


@dataclass(frozen=True)
class SearchSpace:
    """The dimensions of a sweep."""

    dimensions: tuple[Dimension, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The settings that are searched."""
        return tuple(dimension.name for dimension in self.dimensions)

    def start(self, base: Config) -> Params:
        """The base configuration's own values: trial 0.

        Raises:
            ConfigError: one lies outside its range.
        """
        params = {name: float(_setting(base, name)) for name in self.names}
        for dimension in self.dimensions:
            if not dimension.low <= params[dimension.name] <= dimension.high:
                raise ConfigError(
                    f"{dimension.name} is {params[dimension.name]:g}, outside the range "
                    f"{dimension.low:g}:{dimension.high:g} that is searched",
                    hint=f"widen it with --search {dimension.name}=LOW:HIGH",
                )
        return params

    def apply(self, base: Config, params: Mapping[str, float]) -> Config:
        """The base configuration with these values."""
        for name, value in params.items():
            base = base.replace_setting(name, value)
        return base

    def to_unit(self, params: Mapping[str, float]) -> Point:
        """Each value's place in its range: (dimensions,)."""
        return np.array([dimension.to_unit(params[dimension.name]) for dimension in self.dimensions])

    def from_unit(self, point: Point) -> Params:
        """The values at a point."""
        places = zip(self.dimensions, point, strict=True)
        return {dimension.name: dimension.from_unit(float(place)) for dimension, place in places}

    def to_list(self) -> list[dict[str, Any]]:
        """Plain data."""
        return [vars(dimension).copy() for dimension in self.dimensions]

    @classmethod
    def from_list(cls, entries: Sequence[Mapping[str, Any]]) -> "SearchSpace":
        """What `to_list` gave.

        Raises:
            ConfigError: it cannot have.
        """
        dimensions = tuple(Dimension(**entry) for entry in entries)
        unknown = {one.name for one in dimensions} - {one.name for one in (*ALWAYS, *ON_REQUEST)}
        if unknown or not dimensions:
            raise ConfigError(f"{', '.join(sorted(unknown)) or 'nothing'} is searched")
        return cls(dimensions)


def search_space(base: Config, requested: Sequence[str] = ()) -> SearchSpace:
    """The space of a sweep: what is always searched, and what is asked for.

    Args:
        base: the configuration searched around.
        requested: `section.field` or `section.field=low:high`; also changes the range of what is always searched.

    Raises:
        ConfigError: a setting that cannot be searched (with the nearest that can) or is named twice, a range that is
            unreadable or goes beyond what the setting may be, or a setting that has no effect on this base.
    """
    known = {dimension.name: dimension for dimension in (*ALWAYS, *ON_REQUEST)}
    chosen = {dimension.name: dimension for dimension in ALWAYS}
    named: set[str] = set()
    for text in requested:
        name, separator, limits = (part.strip() for part in text.partition("="))
        if name not in known:
            tails = [key for key in known if key.rpartition(".")[2] == name]
            nearest = tails or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ConfigError(f"{name!r} cannot be searched", hint=f"did you mean {nearest[0]}? {_searchable()}")
        if name in named:
            raise ConfigError(f"--search names {name} twice", hint="give it once, with one range")
        named.add(name)
        chosen[name] = _limited(known[name], limits) if separator else known[name]
    if "data.volatility_multiple" in chosen and base.data.label_set != "forward_return":
        raise ConfigError(
            f"data.volatility_multiple has no effect on the label set {base.data.label_set}",
            hint="add --set data.label_set=forward_return",
        )
    space = SearchSpace(tuple(chosen[name] for name in known if name in chosen))
    for dimension in space.dimensions:
        _require_valid_ends(base, dimension)
    return space


def _limited(dimension: Dimension, limits: str) -> Dimension:
    try:
        low, high = (float(part) for part in limits.split(":"))
    except ValueError:
        raise ConfigError(
            f"cannot read the range {limits!r} of {dimension.name}",
            hint=f"for example --search {dimension.name}={dimension.low:g}:{dimension.high:g}",
        ) from None
    return replace(dimension, low=low, high=high)


def _require_valid_ends(base: Config, dimension: Dimension) -> None:
    for end in (dimension.low, dimension.high):
        try:
            base.replace_setting(dimension.name, end)
        except ConfigError as error:
            raise ConfigError(
                f"{dimension.name} cannot be searched from {dimension.low:g} to {dimension.high:g}: {error.message}",
                hint=f"for example --search {dimension.name}={_default(dimension.name)}",
            ) from error


def _searchable() -> str:
    ranges = [f"{one.name}={one.low:g}:{one.high:g}" for one in (*ALWAYS, *ON_REQUEST)]
    return f"what can be searched, with its usual range: {', '.join(ranges)}"


def _default(name: str) -> str:
    return next(f"{one.low:g}:{one.high:g}" for one in (*ALWAYS, *ON_REQUEST) if one.name == name)


def _setting(config: Config, name: str) -> Any:
    section, _, leaf = name.partition(".")
    return getattr(getattr(config, section), leaf)
