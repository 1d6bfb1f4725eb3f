"""How a cohort of assets is judged by numbers that do not move with the loss being searched.

One asset's macro F1 is a lottery: of 105 real test parts 51 hold no buy and 19 no sell. So the assets' confusion
matrices are summed first. Return errors are divided by persistence's asset by asset: no volatile asset decides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from b3dist.training.metrics import confusion_matrix, macro_f1_of

if TYPE_CHECKING:  # a fleet's driver, which compares stored metrics, must not pay seconds for torch
    from b3dist.data.windows import Split
    from b3dist.training.return_unit import ReturnTarget
    from b3dist.training.trainer import Predictions

Counts = npt.NDArray[np.int64]
"""(3, 3): rows true, columns predicted, in the order buy, sell, hold."""


@dataclass(frozen=True, kw_only=True)
class AssetScore:
    """One part of one asset, in sums that can be pooled."""

    confusion: Counts
    squared_error: float
    """Of the predicted returns, summed over windows, fractions squared."""
    naive_squared_error: float
    """Persistence's."""

    @classmethod
    def of(cls, predictions: "Predictions", part: "Split", target: "ReturnTarget") -> "AssetScore":
        """Score a model's outputs for the windows of a part."""
        returns = target.decode(predictions.returns.cpu().double()).numpy()
        return cls(
            confusion=confusion_matrix(part.action, predictions.logits.cpu().argmax(dim=1).numpy()),
            squared_error=float(np.square(returns - part.future_return).sum()),
            naive_squared_error=float(np.square(part.future_return).sum()),
        )

    @classmethod
    def of_metrics(cls, part: Mapping[str, Any], persistence: Mapping[str, Any]) -> "AssetScore":
        """The same from a part of metrics.json, and persistence's entry there, on the same windows."""
        windows = part["num_windows"]
        return cls(
            confusion=np.array(part["confusion"], dtype=np.int64).reshape(3, 3),
            squared_error=windows * part["return"]["rmse"] ** 2,
            naive_squared_error=windows * persistence["return"]["rmse"] ** 2,
        )

    @property
    def macro_f1(self) -> float:
        """Of this asset alone."""
        return float(macro_f1_of(self.confusion))

    @property
    def error_ratio(self) -> float | None:
        """Return RMSE relative to persistence's; None where the price never moved."""
        if self.naive_squared_error <= 0:
            return None
        return math.sqrt(self.squared_error / self.naive_squared_error)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "confusion": self.confusion.tolist(),
            "squared_error": self.squared_error,
            "naive_squared_error": self.naive_squared_error,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "AssetScore":
        """What `to_dict` gave."""
        return cls(**{**content, "confusion": np.array(content["confusion"], dtype=np.int64)})


@dataclass(frozen=True, kw_only=True)
class CohortScore:
    """A cohort's two objectives."""

    macro_f1: float
    """Of the summed confusion matrices; higher is better."""
    error_ratio: float
    """Geometric mean over assets of return RMSE / persistence's; lower is better."""

    @classmethod
    def pooled(cls, scores: Sequence[AssetScore]) -> "CohortScore":
        """Pool assets (or the same asset under several seeds)."""
        ratios = [ratio for score in scores if (ratio := score.error_ratio) is not None]
        return cls(
            macro_f1=float(macro_f1_of(np.sum([score.confusion for score in scores], axis=0))),
            error_ratio=math.exp(float(np.mean(np.log(np.maximum(ratios, 1e-12))))) if ratios else 1.0,
        )


def most_frequent_action(scores: Sequence[AssetScore]) -> int:
    """Of all the assets' windows together, as an action id."""
    return int(support_of(scores).argmax())


def constant_scores(scores: Sequence[AssetScore]) -> list[AssetScore]:
    """What costs nothing, on the same windows: always the most frequent action, and a price that does not move."""
    action = most_frequent_action(scores)
    constants = []
    for score in scores:
        confusion = np.zeros_like(score.confusion)
        confusion[:, action] = score.confusion.sum(axis=1)
        naive = score.naive_squared_error
        constants.append(AssetScore(confusion=confusion, squared_error=naive, naive_squared_error=naive))
    return constants


def support_of(scores: Sequence[AssetScore]) -> Counts:
    """True windows per action: (3,)."""
    return np.asarray(np.sum([score.confusion for score in scores], axis=0).sum(axis=1), dtype=np.int64)
