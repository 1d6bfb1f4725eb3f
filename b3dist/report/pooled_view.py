"""What a pooled run's page says of the one model, over the windows of all assets."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from b3dist.report.asset_view import compact_history
from b3dist.report.run_record import AssetFiles


class WholeRow(NamedTuple):
    """A measure of the model, beside what costs nothing; None where undefined."""

    name: str
    test: float | None
    test_baseline: float | None
    val: float | None
    val_baseline: float | None


class WholeModel(NamedTuple):
    """The model as a whole."""

    rows: tuple[WholeRow, ...]
    kept_epoch: int
    epochs: int
    workers: int | None
    windows_per_s: float | None
    all_reduce_share: float | None
    validation_from: str | None
    """First sessions of the two later parts, for all assets alike; None where the model's folder does not say."""
    test_from: str | None
    p_values: dict[str, float | None]
    """By part: of the mean gain per session over predicting no change (Diebold-Mariano, one-sided)."""
    actions: dict[str, dict[str, int]]
    """By part: windows of each action."""
    history: dict[str, Any] | None
    """Columns of history.csv."""


_MEASURES = (
    ("Accuracy", ("accuracy",), ("majority", "accuracy")),
    ("Macro F1", ("macro_f1",), ("majority", "macro_f1")),
    ("Return RMSE", ("return", "rmse"), ("persistence", "return", "rmse")),
    ("Return IC, mean over assets", ("mean_over_assets", "ic"), ()),
)


def whole_model(summary: Mapping[str, Any], files: AssetFiles | None = None) -> WholeModel | None:
    """What a pooled run says of its model; None of another run, or before the end.

    Args:
        summary: summary.json.
        files: the model's folder.
    """
    metrics, pooled = summary.get("metrics"), summary.get("pooled")
    if not metrics or not pooled:
        return None
    cut: Mapping[str, Any] = ((files.facts if files else None) or {}).get("cut") or {}
    rows = []
    for name, model, baseline in _MEASURES:
        numbers = []
        for split in ("test", "val"):
            numbers.append(_find(metrics[split], model))
            numbers.append(_find(metrics[split]["baselines"], baseline) if baseline else None)
        rows.append(WholeRow(name, *numbers))
    return WholeModel(
        rows=tuple(rows),
        kept_epoch=metrics["best_epoch"],
        epochs=metrics["epochs"],
        workers=pooled["workers"],
        windows_per_s=pooled["windows_per_s"],
        all_reduce_share=pooled["all_reduce_share"],
        validation_from=cut.get("validation_from"),
        test_from=cut.get("test_from"),
        p_values={split: (metrics[split].get("skill") or {}).get("p_value") for split in ("test", "val")},
        actions={
            split: {name: one["support"] for name, one in (metrics[split].get("per_class") or {}).items()}
            for split in ("test", "val")
        },
        history=compact_history(files.history) if files else None,
    )


def _find(nested: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    value: Any = nested
    for name in names:
        value = value[name]
    return None if value is None else float(value)


def untrained_on(facts: Mapping[str, Any] | None) -> bool:
    """Whether a pooled model has seen nothing of an asset: its windows all lie after the cut."""
    train = ((facts or {}).get("splits") or {}).get("train") or {}
    return train.get("num_windows") == 0
