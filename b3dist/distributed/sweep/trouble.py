"""Errors in a worker of a sweep: which are a trial's own, and which end the sweep."""

from typing import Final

from b3dist.errors import B3distError, LakeError, StorageError, describe_error

TROUBLE: Final = "trouble"
"""Key of a result, a pack's (as JSON text) or an evaluation's, that ends the sweep: message and hint."""


def ends_sweep(error: Exception) -> bool:
    """Whether an error is the lake's or a disk's: it says nothing of the trial or asset it came up with."""
    return isinstance(error, LakeError | StorageError | OSError)


def describe_trouble(error: Exception) -> dict[str, str]:
    """What is wrong and what to do about it."""
    hint = error.hint if isinstance(error, B3distError) else ""
    return {"message": describe_error(error), "hint": hint or "put it right, then resume the sweep"}
