"""What a pooled run's page says of the one model, over the windows of all assets."""

from collections.abc import Mapping
from typing import Any, NamedTuple


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


_MEASURES = (
    ("Accuracy", ("accuracy",), ("majority", "accuracy")),
    ("Macro F1", ("macro_f1",), ("majority", "macro_f1")),
    ("Return RMSE", ("return", "rmse"), ("persistence", "return", "rmse")),
    ("Return IC, mean over assets", ("mean_over_assets", "ic"), ()),
)


def whole_model(summary: Mapping[str, Any]) -> WholeModel | None:
    """What summary.json of a pooled run says of its model; None of another run, or before the end."""
    metrics, pooled = summary.get("metrics"), summary.get("pooled")
    if not metrics or not pooled:
        return None
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
    )


def _find(nested: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    value: Any = nested
    for name in names:
        value = value[name]
    return None if value is None else float(value)
