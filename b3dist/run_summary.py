"""summary.json read back: checked against what its readers rely on, so that a damaged file is named and not guessed at.

A name of a shape that ends in `?` may be absent, as older versions did not write it; what a shape does not name is not
looked at.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from b3dist.errors import RunError
from b3dist.run_folder import resume_command

type Shape = type | tuple["Shape", ...] | list["Shape"] | Fields | None
"""A type, alternatives, a list of one shape, an object, or None for null."""
type Fields = Mapping[str, "Shape"]
"""An object's shapes by name; `*` stands for any names."""

_TEXT: Final = (str, None)
_NUMBER: Final = (float, None)

FLEET: Final[Fields] = {
    "run_id?": str,
    "state?": str,
    "totals?": {"*": float},
    "assets?": [{"ticker": str, "state": str, "reason?": _TEXT, "error?": _TEXT}],
    "tracking?": ({"uri": str, "run_id": str, "not_logged": {"*": str}}, None),
}
"""What is read of a fleet's summary.json."""

_PART: Final[Fields] = {
    "accuracy": _NUMBER,
    "macro_f1": _NUMBER,
    "return": {"rmse": _NUMBER},
    "mean_over_assets": {"ic": _NUMBER},
    "baselines": {
        "majority": {"accuracy": _NUMBER, "macro_f1": _NUMBER},
        "persistence": {"return": {"rmse": _NUMBER}},
    },
    "skill?": ({"p_value?": _NUMBER}, None),
    "per_class?": ({"*": {"support": int}}, None),
}
POOLED: Final[Fields] = {
    **FLEET,
    "metrics?": ({"val": _PART, "test": _PART, "best_epoch": int, "epochs": int}, None),
    "pooled?": ({"workers": (int, None), "windows_per_s": _NUMBER, "all_reduce_share": _NUMBER}, None),
}
"""What is read of a pooled run's."""


def read_summary(
    path: Path, kind: str, shape: Fields, *, check: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any] | None:
    """A run's summary.json, or None where there is none, as no driver has come to its end.

    Args:
        path: the run's folder.
        kind: the run's kind, for the hint.
        shape: what the file must hold.
        check: says with a ValueError what no shape can.

    Raises:
        RunError: the file is damaged; names the field, and the command that writes the file again.
    """
    file = path / "summary.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        _require(content, shape, "")
        if check is not None:
            check(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        again = resume_command(path, kind) + (" --max-hours 0" if kind == "sweep" else "")  # else trials left would run
        raise RunError(
            f"{file} is damaged: {what}", hint=f"{again} writes it again; nothing is trained twice"
        ) from error
    assert isinstance(content, dict), "it has the shape of an object"
    return content


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _require(value: object, shape: Shape, where: str) -> None:
    """Raise a ValueError that names the first place where a value has not its shape."""
    alternatives = shape if isinstance(shape, tuple) else (shape,)
    fitting = next((one for one in alternatives if _is_such(value, one)), ...)
    if fitting is ...:
        expected = " or ".join(_name_of(one) for one in alternatives)
        raise ValueError(f"{where or 'the whole'} must be {expected}, got {json.dumps(value, default=str):.60}")
    if isinstance(fitting, list):
        assert isinstance(value, list)
        for number, entry in enumerate(value):
            _require(entry, fitting[0], f"{where}[{number}]")
    elif isinstance(fitting, Mapping):
        assert isinstance(value, dict)
        _require_fields(value, fitting, where)


def _require_fields(value: Mapping[str, object], shape: Fields, where: str) -> None:
    for key, field in shape.items():
        if key == "*":
            for name, entry in value.items():
                _require(entry, field, _below(where, name))
        elif (name := key.removesuffix("?")) in value:
            _require(value[name], field, _below(where, name))
        elif not key.endswith("?"):
            raise ValueError(f"{_below(where, name)} is missing")


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _is_such(value: object, shape: Shape) -> bool:
    """Whether a value is of a shape's kind, its own content left aside; a number is finite."""
    if shape is None:
        return value is None
    if isinstance(shape, list):
        return isinstance(value, list)
    if isinstance(shape, Mapping):
        return isinstance(value, dict)
    assert isinstance(shape, type), "alternatives do not nest"
    if shape is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, shape) and (shape is bool or not isinstance(value, bool))


def _name_of(shape: Shape) -> str:
    if shape is None:
        return "null"
    if isinstance(shape, Mapping):
        return "an object"
    if isinstance(shape, list):
        return "a list"
    assert isinstance(shape, type), "alternatives do not nest"
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[shape]
