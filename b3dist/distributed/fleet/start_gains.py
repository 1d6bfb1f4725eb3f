"""What training on from a warm start was worth over all its assets, by the scores and the bootstrap of sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from b3dist.tuning.evidence import FEWEST_ASSETS, Interval, error_ratio_change, macro_f1_gain
from b3dist.tuning.scores import AssetScore, CohortScore

Part = Literal["val", "test"]
Score = Literal["macro_f1", "error_ratio"]


class Scores(NamedTuple):
    """One asset's scores on one part: before the first step, and of the weights that were kept."""

    start: AssetScore
    kept: AssetScore


@dataclass(frozen=True, kw_only=True)
class Gain:
    """One score of all assets together on one part, before the first step and of the kept weights."""

    part: Part
    score: Score
    """Macro F1 of the summed confusion matrices, or the geometric mean of return RMSE / persistence's."""
    start: float
    kept: float
    better: int
    """Assets whose kept weights score better than their start; the unchanged ones score the same."""
    worse: int
    assets: int
    change: Interval | None
    """Kept minus start; None with too few assets to draw again."""

    @property
    def lower_is_better(self) -> bool:
        """Of an error."""
        return self.score == "error_ratio"

    @property
    def conclusion(self) -> Literal["better", "worse", "not told apart", "too few assets"]:
        """Which side of zero the interval of the change lies on."""
        if self.change is None:
            return "too few assets"
        if self.change.low <= 0 <= self.change.high:
            return "not told apart"
        return "better" if (self.change.high < 0) == self.lower_is_better else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "start": self.start,
            "kept": self.kept,
            "better": self.better,
            "worse": self.worse,
            "assets": self.assets,
            "change": None if self.change is None else self.change.to_dict(),
            "conclusion": self.conclusion,
        }

    def in_words(self) -> str:
        """The score and its change."""
        name = "return error / no change's" if self.lower_is_better else "macro F1"
        told = f"{name} {self.start:.4f} to {self.kept:.4f}"
        if self.change is None:
            return f"{told} (no interval: fewer than {FEWEST_ASSETS} assets)"
        interval = f"{self.change.level:.0%} interval of the change {self.change.low:+.4f} to {self.change.high:+.4f}"
        return f"{told} ({self.conclusion}: {interval})"


def gains_of(assets: Sequence[Mapping[Part, Scores]], *, seed: int) -> list[Gain]:
    """Both scores on both parts; none where no asset has its start's scores.

    Args:
        assets: each one's scores by part.
        seed: of the bootstrap.
    """
    gains = []
    for part in ("val", "test"):
        judged = [scores[part] for scores in assets if part in scores]
        moving = [one for one in judged if one.kept.error_ratio is not None]
        gains += [_gain(part, "macro_f1", judged, seed)] if judged else []
        gains += [_gain(part, "error_ratio", moving, seed)] if moving else []
    return gains


def _gain(part: Part, score: Score, judged: Sequence[Scores], seed: int) -> Gain:
    start, kept = [one.start for one in judged], [one.kept for one in judged]
    interval = macro_f1_gain if score == "macro_f1" else error_ratio_change
    changes = [getattr(one.kept, score) - getattr(one.start, score) for one in judged]
    rises, falls = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    better, worse = (rises, falls) if score == "macro_f1" else (falls, rises)
    return Gain(
        part=part,
        score=score,
        start=getattr(CohortScore.pooled(start), score),
        kept=getattr(CohortScore.pooled(kept), score),
        better=better,
        worse=worse,
        assets=len(judged),
        change=interval(kept, start, seed=seed) if len(judged) >= FEWEST_ASSETS else None,
    )
