"""The complete configuration of a training run: frozen, self-checking, no I/O.

Defaults are the model card's values. `Config.with_overrides(["loss.gamma=2"])` is what `--set` calls.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal, Self

from b3dist.errors import ConfigError

FeatureSet = Literal["v1", "v2"]
LabelSet = Literal["signal_cluster", "forward_return"]
ReturnUnit = Literal["fraction", "percent", "standardised"]
ReturnWeighting = Literal["sampled", "uniform"]
Sampler = Literal["balanced", "shuffled"]
Precision = Literal["fp32", "tf32", "bf16"]

_LARGEST_FLOAT32: Final = 3.4e38


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{name} must be {expected}, got {value!r}", hint=f"for example --set {name}=<{expected}>")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a window is made of and how an asset's history is divided."""

    feature_set: FeatureSet = "v1"
    """v1: the card's 13 columns; v2: scale-free ratios."""
    label_set: LabelSet = "signal_cluster"
    """signal_cluster: the card's indicator rule; forward_return: beyond volatility_multiple x volatility."""
    lookback: int = 32
    """Sessions in a window."""
    horizon: int = 2
    """Sessions from a window's last row to its target."""
    min_sessions: int = 1000
    """Assets with fewer sessions are skipped."""
    max_gap: int = 5
    """Exchange sessions between two neighbouring bars beyond which no window or target may cross."""
    train_fraction: float = 0.6
    """Share of windows, oldest first, to train on."""
    validation_fraction: float = 0.2
    """Share of windows after those to select by; the rest is the test part."""
    validation_from: date | None = None
    """First session of the validation part, the same for every asset; None: by the fractions above."""
    test_from: date | None = None
    """First session of the test part, likewise; goes with validation_from."""
    volatility_multiple: float = 1.0
    """k of forward_return: a move beyond k x volatility x sqrt(horizon) is a buy or a sell."""
    volatility_window: int = 20
    """Sessions of the trailing volatility of forward_return."""
    from_session: date | None = None
    """First session a window may contain; None: the whole history."""
    to_session: date | None = None
    """Last session used at all; None: the whole history."""

    def __post_init__(self) -> None:
        _require(self.lookback >= 2, "data.lookback", self.lookback, "at least 2")
        _require(self.horizon >= 1, "data.horizon", self.horizon, "at least 1")
        _require(self.min_sessions >= 1, "data.min_sessions", self.min_sessions, "at least 1")
        _require(self.max_gap >= 1, "data.max_gap", self.max_gap, "at least 1")
        _require(0 < self.train_fraction < 1, "data.train_fraction", self.train_fraction, "between 0 and 1")
        _require(
            0 < self.validation_fraction < 1 - self.train_fraction,
            "data.validation_fraction",
            self.validation_fraction,
            f"between 0 and 1 - data.train_fraction = {1 - self.train_fraction:g}",
        )
        _require(self.volatility_multiple > 0, "data.volatility_multiple", self.volatility_multiple, "above 0")
        _require(self.volatility_window >= 2, "data.volatility_window", self.volatility_window, "at least 2")
        if self.from_session and self.to_session:
            _require(
                self.from_session < self.to_session,
                "data.from_session",
                str(self.from_session),
                f"before data.to_session = {self.to_session}",
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    hidden_size: int = 64
    """LSTM units."""
    dropout: float = 0.4
    """Share of the last hidden state dropped before both heads."""

    def __post_init__(self) -> None:
        _require(1 <= self.hidden_size <= 4096, "model.hidden_size", self.hidden_size, "between 1 and 4096")
        _require(0 <= self.dropout < 1, "model.dropout", self.dropout, "in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The weighted multi-task loss."""

    gamma: float = 3.0
    """Focusing exponent of the focal loss."""
    action_weight: float = 20.0
    """Weight of the focal loss."""
    return_weight: float = 50.0
    """Weight of the squared return error."""
    class_weights: bool = False
    """Weigh classes by inverse frequency in the focal loss (on top of the sampler)."""
    return_unit: ReturnUnit = "standardised"
    """Unit the return head learns in; reports are always in fractions."""
    return_weighting: ReturnWeighting = "uniform"
    """uniform: the squared error is weighted by the inverse sampling probability; sampled: as drawn."""

    def __post_init__(self) -> None:
        _require(self.gamma >= 0, "loss.gamma", self.gamma, "at least 0")
        _require(self.action_weight >= 0, "loss.action_weight", self.action_weight, "at least 0")
        _require(self.return_weight >= 0, "loss.return_weight", self.return_weight, "at least 0")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation of one asset."""

    epochs: int = 50
    """Most epochs."""
    batch_size: int = 128
    """Windows per step."""
    micro_batch: int = 128
    """Windows per forward pass of the pooled model; a step's gradients are summed over them in one order."""
    sampler: Sampler = "balanced"
    """balanced: drawn with replacement by inverse class frequency; shuffled: each window once per epoch."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    weight_decay: float = 1e-4
    """L2 term added to the gradient (Adam, not AdamW)."""
    clip_norm: float = 1.0
    """Largest gradient norm over all parameters."""
    patience: int = 20
    """Epochs without improvement by min_delta before training stops."""
    min_delta: float = 100.0
    """Improvement that resets patience; the selection of the best epoch ignores it."""
    scheduler_factor: float = 0.5
    """Factor of ReduceLROnPlateau."""
    scheduler_patience: int = 5
    """Patience of ReduceLROnPlateau, in epochs."""
    min_learning_rate: float = 1e-6
    """Floor of ReduceLROnPlateau."""
    precision: Precision = "fp32"
    """Of the recurrent layer's products while training: tf32 on GPUs, bf16 where the processor has it; weights, heads,
    loss and optimiser stay fp32, and so does every prediction that is stored."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch", "patience"):
            _require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "at least 1")
        _require(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "above 0")
        _require(self.weight_decay >= 0, "training.weight_decay", self.weight_decay, "at least 0")
        _require(self.clip_norm > 0, "training.clip_norm", self.clip_norm, "above 0")
        _require(0 < self.scheduler_factor < 1, "training.scheduler_factor", self.scheduler_factor, "between 0 and 1")
        _require(self.scheduler_patience >= 0, "training.scheduler_patience", self.scheduler_patience, "at least 0")
        _require(self.min_learning_rate >= 0, "training.min_learning_rate", self.min_learning_rate, "at least 0")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides the numbers of a run; where it runs is decided elsewhere."""

    data: DataConfig = field(default_factory=DataConfig)
    """Windows, labels and the split."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Optimisation."""
    seed: int = 0
    """Each asset's generator is seeded by this and its ticker."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, "seed", self.seed, "between 0 and 2**63 - 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, dates as ISO strings: what config.json and bundle.json hold."""
        nested = dataclasses.asdict(self)
        for name, value in nested["data"].items():
            if isinstance(value, date):
                nested["data"][name] = value.isoformat()
        return nested

    @classmethod
    def from_dict(cls, nested: Mapping[str, Any], *, base: Self | None = None) -> Self:
        """Configuration from a (possibly partial) nested dictionary laid over `base` (default: the card).

        Raises:
            ConfigError: unknown name (with the nearest valid one), wrong type or value out of range.
        """
        config = base if base is not None else cls()
        for name, value in _flatten(nested):
            config = config.replace_setting(name, value)
        return config

    def with_overrides(self, overrides: Iterable[str]) -> Self:
        """This configuration with `section.field=value` strings applied in order.

        Raises:
            ConfigError: a string without "=", an unknown name (with the nearest valid one) or a bad value.
        """
        config = self
        for override in overrides:
            name, separator, value = override.partition("=")
            if not separator:
                raise ConfigError(
                    f"cannot read the override {override!r}: expected section.field=value",
                    hint="for example --set training.epochs=3",
                )
            config = config.replace_setting(name.strip(), value.strip())
        return config

    def replace_setting(self, name: str, value: object) -> Self:
        """A copy with one setting, named `section.field` or `seed`, replaced; strings are converted to its type."""
        known = setting_types()
        if name not in known:
            tails = [key for key in known if key.rpartition(".")[2] == name]
            nearest = tails or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ConfigError(f"unknown setting {name!r}", hint=f"did you mean {nearest[0]!r}?")
        converted: Any = _convert(name, value, known[name])
        section, _, leaf = name.rpartition(".")
        if not section:
            return dataclasses.replace(self, **{leaf: converted})
        part = dataclasses.replace(getattr(self, section), **{leaf: converted})
        return dataclasses.replace(self, **{section: part})


def setting_types() -> dict[str, Any]:
    """Every setting's dotted name and type, in order of definition."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            for leaf, leaf_kind in typing.get_type_hints(kind).items():
                found[f"{name}.{leaf}"] = leaf_kind
        else:
            found[name] = kind
    return found


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _convert(name: str, value: object, kind: Any) -> object:
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in choices:
            raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        return value
    if origin is types.UnionType:
        if value is None or value in ("none", "null", ""):
            return None
        kind = choices[0]
    try:
        return _parse_scalar(value, kind)
    except (TypeError, ValueError):
        expected = {int: "a whole number", float: "a number", bool: "true or false", date: "a date like 2018-12-28"}
        shown = str(value) if isinstance(value, datetime) else value
        raise ConfigError(f"{name} must be {expected[kind]}, got {shown!r}") from None


def _parse_scalar(value: object, kind: type) -> object:
    if kind is bool:
        truth = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
        lowered = str(value).lower()
        if lowered not in truth:
            raise ValueError
        return truth[lowered]
    if isinstance(value, bool):
        raise TypeError
    if kind is date:
        if isinstance(value, datetime):  # is a date, but would be written as what no date is read from
            raise ValueError
        return value if isinstance(value, date) else date.fromisoformat(str(value))
    if kind is int:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return int(str(value))
    number = float(str(value))
    if not abs(number) <= _LARGEST_FLOAT32:  # no number, infinite, or of no use to 32-bit weights
        raise ValueError
    return number
