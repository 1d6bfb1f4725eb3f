"""How long one invocation of a sweep may search: after that no trial begins."""

import time
from collections.abc import Callable
from typing import Final

from b3dist.errors import ConfigError

_MOST_HOURS: Final = 8760
"""A year: more is a typing error."""


class TimeBudget:
    """Time that runs from the moment this is made.

    Args:
        hours: how long; 0 is spent at once.
        clock: seconds.

    Raises:
        ConfigError: negative, no number or more than a year.
    """

    def __init__(self, hours: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 <= hours <= _MOST_HOURS:  # which no NaN is
            raise ConfigError(
                f"the hours to search must be between 0 and {_MOST_HOURS}, got {hours:g}",
                hint="--max-hours 8, or 0 to begin no further trial",
            )
        self.hours = hours
        self._clock = clock
        self._end = clock() + 3600.0 * hours

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return max(0.0, self._end - self._clock())

    @property
    def is_spent(self) -> bool:
        """Whether none is left."""
        return self.left_s == 0.0


def describe_stop(settled: int, planned: int) -> str:
    """What a person is told of a search that ran out of time."""
    return f"stopped by --max-hours after {settled} of {planned} trials"
