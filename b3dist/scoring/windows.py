"""One window on its way to a model, or why there is none."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """What one score is computed from; made by a Scorer, and scored by one of the same release."""

    release_id: str
    ticker: str
    session: date
    """The last session seen."""
    price: float
    """Close of that session, BRL as traded (of the caller's bars: as given)."""
    age_sessions: int
    """Exchange sessions between that session and the one asked for."""
    rows: npt.NDArray[np.float32]
    """(lookback, F) z-scores."""
    needed: int
    """Sessions this score takes, warm-up included."""
    found: int
    """Sessions there were."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An asset without a score."""

    ticker: str
    reason: str
    needed: int | None = None
    """Sessions a window takes, where there were too few."""
    found: int | None = None
