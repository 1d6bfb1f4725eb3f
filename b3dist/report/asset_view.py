"""One asset's charts as compact plain data: what the page draws when the asset is opened."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from b3dist.data.schema import ACTIONS
from b3dist.report.calibration import reliability, return_groups
from b3dist.report.overview import SPLITS
from b3dist.report.run_record import AssetFiles

_LETTERS = np.array([name[0] for name in ACTIONS])
_BASIS_POINT = 1e-4
_FACTS = ("anchor", "feature_set", "label_set", "seed", "splits", "dropped_windows", "model_sha256", "initial_model")


def asset_view(files: AssetFiles) -> dict[str, Any]:
    """Everything the page shows of an asset, JSON-ready; a chart whose file is missing is None."""
    return {
        "ticker": files.ticker,
        "missing": list(files.missing),
        "facts": {name: files.facts[name] for name in _FACTS if name in files.facts} if files.facts else None,
        "metrics": files.metrics,
        "history": compact_history(files.history),
        "parts": _parts(files.predictions),
    }


def compact_history(history: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Columns of history.csv, in fewer digits; None where there is none."""
    if not history:
        return None
    return {name: [_significant(value, 5) for value in values] for name, values in history.items()}


def _parts(predictions: Mapping[str, npt.NDArray[Any]] | None) -> dict[str, Any] | None:
    if predictions is None:
        return None
    parts = {}
    for split in SPLITS:
        rows = predictions["split"] == split
        if rows.any():
            parts[split] = _part({name: values[rows] for name, values in predictions.items()})
    return parts


def _part(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Sessions as days since the one before, returns in basis points, actions as one letter each: half the bytes."""
    sessions = columns["session"].astype("datetime64[D]")
    truth = columns["y_action"].astype(np.int64)
    return {
        "first": str(sessions[0]),
        "days": np.diff(sessions).astype(int).tolist(),
        "close": [_significant(value, 5) for value in columns["close"].tolist()],
        "action": "".join(_LETTERS[columns["action"].astype(np.int64)]),
        "truth": "".join(_LETTERS[truth]),
        "predicted_bp": [_significant(value, 4) for value in (columns["return_pred"] / _BASIS_POINT).tolist()],
        "realised_bp": [_significant(value, 4) for value in (columns["y_return"] / _BASIS_POINT).tolist()],
        "reliability": {
            name: [
                [_significant(point.predicted, 4), _significant(point.observed, 4), point.num_windows]
                for point in reliability(columns[f"p_{name}"], truth == action)
            ]
            for action, name in enumerate(ACTIONS)
        },
        "return_groups": [
            [*(_significant(value, 4) for value in group[:3]), group.num_windows]
            for group in return_groups(columns["return_pred"], columns["y_return"])
        ],
    }


def _significant(value: float | None, digits: int) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.{digits}g}")
