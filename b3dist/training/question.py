"""What two trainings must agree in before one can start from the other's weights. Imports no torch: drivers ask too."""

from b3dist.config import Config
from b3dist.errors import ConfigError

SAME_QUESTION = ("data.feature_set", "data.label_set", "data.lookback", "data.horizon", "model.hidden_size")
"""Settings that decide what a model sees, what it answers, and its size."""


def require_same_question(initial: Config, config: Config) -> None:
    """Refuse to start from a model with other inputs, outputs or size.

    Raises:
        ConfigError: names what differs.
    """
    different = []
    for name in SAME_QUESTION:
        section, _, leaf = name.partition(".")
        before, now = getattr(getattr(initial, section), leaf), getattr(getattr(config, section), leaf)
        if before != now:
            different.append(f"{name} was {before!r}, is {now!r}")
    if different:
        raise ConfigError(
            f"the initial model was trained for something else: {'; '.join(different)}",
            hint="give this run the same settings with --recipe and --set, or start from another model",
        )
