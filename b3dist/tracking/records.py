"""What a run's files say, as MLflow's flat names and numbers. No MLflow here."""

import csv
import json
import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from b3dist.errors import RunError

MAX_PARAM = 6000
"""Characters of a parameter's value: MLflow's limit."""
MAX_TAG = 5000
"""Characters of a tag's value: below MLflow's limit of 8000."""


class Value(NamedTuple):
    """One number of a run; `step` is the epoch, 0 for final numbers."""

    name: str
    value: float
    step: int


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """Every set leaf of a nested configuration by its dotted name, as text."""
    return {name: str(value)[:MAX_PARAM] for name, value in _leaves(config) if value is not None}


def numbers(nested: Mapping[str, Any], *, without: Collection[str] = ()) -> list[Value]:
    """Every finite number of a nested mapping by its dotted name; lists, nulls and NaN are left out, not made 0.

    Args:
        nested: metrics.json, summary.json.
        without: keys left out at any depth, with all below them.
    """
    return [
        Value(name, float(value), 0)
        for name, value in _leaves(nested)
        if _is_finite(value) and not any(part in without for part in name.split("."))
    ]


def medians(assets: Sequence[Mapping[str, Any]]) -> list[Value]:
    """`median.<name>` over the assets of summary.json of each number in their `metrics`: nights are compared by it."""
    found: dict[str, list[float]] = {}
    for asset in assets:
        for name, value, _ in numbers(asset.get("metrics") or {}):
            found.setdefault(name, []).append(value)
    return [Value(f"median.{name}", statistics.median(values), 0) for name, values in found.items()]


def history(path: Path) -> list[Value]:
    """The columns of history.csv as `epoch.<column>`, one value per epoch; empty cells are left out."""
    values = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("epoch"))
            for name, cell in row.items():
                if cell and math.isfinite(number := float(cell)):
                    values.append(Value(f"epoch.{name}", number, step))
    return values


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        RunError: the file holds something else.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise RunError(f"{path} must hold a JSON object, got a {type(content).__name__}")
    return content


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
