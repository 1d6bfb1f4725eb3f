"""Scoring: a release's models on the lake's newest bars, on years of them, or on a caller's own; no server needed."""

from b3dist.scoring.scorer import Scorer, Skipped
from b3dist.scoring.windows import Window

__all__ = ["Scorer", "Skipped", "Window"]
