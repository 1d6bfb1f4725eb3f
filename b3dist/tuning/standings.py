"""Winner, trial 0 and what costs nothing, side by side on the same windows, and on how many events that rests."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from b3dist.data.schema import ACTIONS
from b3dist.tuning.scores import AssetScore, CohortScore, support_of

FEWEST_EVENTS: Final = 30
"""With fewer windows of a class, its F1, a third of macro F1, hangs on single windows."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one configuration did on a set of assets."""

    name: str
    macro_f1: float
    """Of the summed confusion matrices."""
    error_ratio: float
    """Return RMSE / persistence's, geometric mean over assets."""
    called: dict[str, float]
    """Windows by the action predicted, mean over seeds."""
    true: dict[str, float]
    """Windows by the action that was right."""
    confusion: list[list[float]]
    """Mean over seeds; rows true, columns predicted, in the order buy, sell, hold."""

    @classmethod
    def of(cls, name: str, scores: Sequence[AssetScore], *, num_seeds: int) -> "Standing":
        """Pool assets, each summed over so many seeds."""
        pooled = CohortScore.pooled(scores)
        confusion = np.sum([score.confusion for score in scores], axis=0) / num_seeds
        return cls(
            name=name,
            macro_f1=pooled.macro_f1,
            error_ratio=pooled.error_ratio,
            called=_by_action(confusion.sum(axis=0)),
            true=_by_action(confusion.sum(axis=1)),
            confusion=confusion.round(2).tolist(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def describe_support(support: Sequence[float] | npt.NDArray[Any]) -> str:
    """`3 buys, 18 sells, 1,995 holds`.

    Args:
        support: (3,) windows per action.
    """
    counts = [(round(number), name) for number, name in zip(support, ACTIONS, strict=True)]
    return ", ".join(f"{number:,} {name}{'' if number == 1 else 's'}" for number, name in counts)


def warn_of_rare(support: Sequence[float] | npt.NDArray[Any], *, where: str) -> str | None:
    """A sentence if an action is so rare that macro F1 rests on a handful of windows; else None."""
    rare = [name for number, name in zip(support, ACTIONS, strict=True) if number < FEWEST_EVENTS]
    if not rare:
        return None
    return (
        f"{where} hold {describe_support(support)}: with fewer than {FEWEST_EVENTS} windows of {' and '.join(rare)}, "
        "macro F1 hangs on a handful of events"
    )


def warn_of_support(scores: Sequence[AssetScore], *, num_seeds: int, where: str) -> str | None:
    """The same for assets' scores, each summed over so many seeds."""
    return warn_of_rare(support_of(scores) / num_seeds, where=where)


def _by_action(counts: Any) -> dict[str, float]:
    return {name: round(float(number), 2) for name, number in zip(ACTIONS, counts, strict=True)}
