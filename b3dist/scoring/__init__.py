"""Scoring: a release's models on the lake's newest bars, on years of them, or on a caller's own; no server needed."""

from b3dist.scoring.scorer import Scorer
from b3dist.scoring.windows import Skipped, Window

__all__ = ["Scorer", "Skipped", "Window"]
