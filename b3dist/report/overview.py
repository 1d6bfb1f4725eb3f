"""The fleet in numbers: one row per asset, and how often the models beat doing nothing."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Row = dict[str, Any]

SPLITS = ("val", "test")


def asset_row(ticker: str, metrics: Mapping[str, Any]) -> Row:
    """What the fleet table shows of an asset: each number with its baseline's; None where undefined or missing."""
    return {
        "ticker": ticker,
        "epochs": metrics.get("epochs"),
        "best_epoch": metrics.get("best_epoch"),
        "overfit_ratio": metrics.get("overfit_ratio"),
        **{split: _split_numbers(metrics.get(split) or {}) for split in SPLITS},
    }


def _split_numbers(part: Mapping[str, Any]) -> Row:
    majority, persistence = ("baselines", "majority"), ("baselines", "persistence")
    numbers = {
        "windows": _number(part, "num_windows"),
        "accuracy": _number(part, "accuracy"),
        "majority_accuracy": _number(part, *majority, "accuracy"),
        "macro_f1": _number(part, "macro_f1"),
        "majority_macro_f1": _number(part, *majority, "macro_f1"),
        "ic": _number(part, "return", "ic"),
        "rank_ic": _number(part, "return", "rank_ic"),
        "mae": _number(part, "return", "mae"),
        "persistence_mae": _number(part, *persistence, "return", "mae"),
        "rmse": _number(part, "return", "rmse"),
        "persistence_rmse": _number(part, *persistence, "return", "rmse"),
        "p_value": _number(part, "skill", "p_value"),
        "beats_persistence": (part.get("skill") or {}).get("beats_persistence"),
        "suspicious": (part.get("skill") or {}).get("suspicious"),
        "price_r2": _number(part, "price", "r2"),
        "persistence_price_r2": _number(part, *persistence, "price", "r2"),
    }
    for name in ("mae", "rmse"):
        own, naive = numbers[name], numbers[f"persistence_{name}"]
        numbers[f"{name}_ratio"] = own / naive if own is not None and naive else None
    return numbers


def _number(nested: Mapping[str, Any], *keys: str) -> float | None:
    value: Any = nested
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


class Measure(NamedTuple):
    """A measure of the scoreboard."""

    name: str
    key: str
    """Its column in a row's split."""
    baseline: str | float
    """The baseline's column, or the value that means no skill."""
    baseline_name: str
    decimals: int
    question: str
    """What it answers, in plain words."""
    lower_is_better: bool = False
    is_correlation: bool = False
    """Better only beyond two standard errors of zero, 1 / sqrt(windows) each."""


MEASURES = (
    Measure(
        "Accuracy",
        "accuracy",
        "majority_accuracy",
        "majority class",
        3,
        "How often is the predicted action the true one?",
    ),
    Measure(
        "Macro F1",
        "macro_f1",
        "majority_macro_f1",
        "majority class",
        3,
        "Are the rare actions found too, or only the frequent one?",
    ),
    Measure(
        "IC",
        "ic",
        0.0,
        "no skill",
        3,
        "Do predicted and realised returns move together? Better: by more than two standard errors.",
        is_correlation=True,
    ),
    Measure(
        "Rank IC",
        "rank_ic",
        0.0,
        "no skill",
        3,
        "The same by ranks, so that a few large moves do not decide.",
        is_correlation=True,
    ),
    Measure(
        "Return MAE ÷ persistence",
        "mae_ratio",
        1.0,
        "predict no change",
        3,
        "Is the predicted return closer to the realised one than zero is?",
        lower_is_better=True,
    ),
    Measure(
        "Return RMSE ÷ persistence",
        "rmse_ratio",
        1.0,
        "predict no change",
        3,
        "The same, with large errors weighing more.",
        lower_is_better=True,
    ),
    Measure(
        "Price R²",
        "price_r2",
        "persistence_price_r2",
        "predict no change",
        4,
        "Near 1 for whatever repeats the last price: no evidence of skill.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One measure over the fleet, against its baseline."""

    measure: Measure
    model: float | None
    """Median over assets."""
    baseline: float | None
    """Median of the baseline over the same assets."""
    better: int
    """Assets in which the model beats the baseline."""
    assets: int
    """Assets in which both are defined."""

    @property
    def share(self) -> float | None:
        """Share of assets in which the model beats the baseline."""
        return self.better / self.assets if self.assets else None


class SkillGate(NamedTuple):
    """How many assets of a split predict returns significantly better than persistence."""

    passed: int
    judged: int
    """Assets with a defined p-value; one in twenty passes by luck."""
    suspicious: Sequence[str]
    """Tickers too good to be true."""


def skill_gate(rows: Sequence[Row], split: str) -> SkillGate:
    """Count the assets that pass the skill gate, as `metrics.json` says."""
    judged = [row[split] for row in rows if row[split]["p_value"] is not None]
    suspicious = [row["ticker"] for row in rows if row[split]["suspicious"]]
    return SkillGate(sum(bool(part["beats_persistence"]) for part in judged), len(judged), suspicious)


def compare(rows: Sequence[Row], split: str) -> list[Comparison]:
    """The scoreboard of a split: medians over assets, and in how many assets the model beats its baseline."""
    return [_comparison([row[split] for row in rows], measure) for measure in MEASURES]


def _comparison(parts: Sequence[Row], measure: Measure) -> Comparison:
    naive = measure.baseline
    triples = [
        (part[measure.key], part[naive] if isinstance(naive, str) else naive, _chance(measure, part)) for part in parts
    ]
    both = [(own, base, chance) for own, base, chance in triples if own is not None and base is not None]
    return Comparison(
        measure=measure,
        model=statistics.median(own for own, _, _ in both) if both else None,
        baseline=statistics.median(base for _, base, _ in both) if both else None,
        better=sum((base - own if measure.lower_is_better else own - base) > chance for own, base, chance in both),
        assets=len(both),
    )


def _chance(measure: Measure, part: Row) -> float:
    """By how much a number may differ from its baseline by chance alone; known for correlations only."""
    if not measure.is_correlation:
        return 0.0
    return 2 / math.sqrt(part["windows"]) if part["windows"] else math.inf
