"""What a pooled run keeps besides a fleet's files: its model as a whole, its epochs, and the checkpoints.

pooled/          bundle of the model as a whole, written last: a run that has it is trained
progress.json    epochs done so far, told by the first worker
ray/             checkpoints, unless the run has a storage of its own; deleted once the run has finished
"""

import json
import shutil
from pathlib import Path
from typing import Any

from b3dist.errors import RunError, describe_damage
from b3dist.run_folder import RunFolder
from b3dist.run_summary import POOLED, read_summary

KIND = "pooled"
STORAGE_OPTION = "storage_path"
MODEL_FOLDER = "pooled"
"""The model as a whole, beside `assets`."""

_OWN_STORAGE = "ray"
_TOLD = {"num_train_windows", "workers", "seconds", "stepping_s", "all_reduce_s", "val_loss", "pid"}
_MEASURED = {"val", "test", "best_epoch", "epochs"}
_SUMMARISED = {"run_id", "totals", "assets", "pooled"}
_COUNTED = {
    *("trained", "skipped", "failed", "already_done", "already_skipped"),
    *("windows_trained", "train_seconds", "wall_seconds"),
}

Epochs = list[dict[str, Any]]


def read_progress(run: Path) -> Epochs:
    """The epochs a pooled run has done so far: history.csv's columns, seconds, and seconds of them in all-reduce.

    Raises:
        RunError: progress.json is damaged.
    """
    path = run / "progress.json"
    try:
        epochs: Epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
        for epoch in epochs:
            if lacking := _TOLD - epoch.keys():
                raise ValueError(f"an epoch lacks {', '.join(sorted(lacking))}")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} is damaged: {describe_damage(error)}", hint="remove it: nothing is trained or restored from it"
        ) from error
    return epochs


def read_metrics(run: RunFolder) -> dict[str, Any] | None:
    """The model's metrics.json, or None as long as there is no model.

    Raises:
        RunError: there is a model, and its metrics.json is missing or damaged.
    """
    folder = run.path / MODEL_FOLDER
    if not folder.is_dir():
        return None
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        if not (isinstance(metrics, dict) and metrics.keys() >= _MEASURED):
            raise ValueError(f"expected an object with {', '.join(sorted(_MEASURED))}")
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise RunError(f"{folder / 'metrics.json'}: {what}", hint=_again(run)) from error
    return metrics


def require_whole(run: RunFolder) -> None:
    """Refuse to go on with a run whose model or progress is damaged; one that is not that far yet is whole.

    Raises:
        RunError: names the file.
    """
    read_progress(run.path)
    if read_metrics(run) is None:
        return
    from b3dist.training.bundle import read_bundle

    try:
        read_bundle(run.path / MODEL_FOLDER)
    except RunError as error:
        raise RunError(error.message, hint=_again(run)) from error


def finished_summary(run: RunFolder) -> dict[str, Any] | None:
    """What summary.json holds if the run has finished and all it wrote is there; None if anything is left to do.

    Raises:
        RunError: as `require_whole`.
    """
    require_whole(run)
    try:
        summary = read_summary(run.path, KIND, POOLED)
    except RunError:
        return None  # damaged: written again, from what the folders hold
    if summary is None:
        return None  # a driver that died as it ended leaves none: what is left is then told by the folders
    whole = summary.get("state") == "finished" and summary.keys() >= _SUMMARISED and summary["pooled"] is not None
    if (
        not whole
        or not summary["totals"].keys() >= _COUNTED
        or any(entry["state"] == "waiting" for entry in summary["assets"])
    ):
        return None
    written = [entry["ticker"] for entry in summary["assets"] if entry["state"] == "trained"]
    present = all((run.assets / ticker).is_dir() for ticker in written)
    if not present or (metrics := read_metrics(run)) is None:
        return None
    return {**summary, "metrics": metrics}


def storage_of(run: RunFolder) -> str:
    """Where the run's checkpoints are: an absolute path, or an address."""
    return str(run.settings.options.get(STORAGE_OPTION) or run.path / _OWN_STORAGE)


def remove_own_storage(run: RunFolder) -> None:
    """Delete the checkpoints in the run's folder, unless they are where they were asked to be kept."""
    own = run.path / _OWN_STORAGE
    if not run.settings.options.get(STORAGE_OPTION) or not Path(storage_of(run)).is_relative_to(own):
        shutil.rmtree(own, ignore_errors=True)


def remove_partial_checkpoints(run: RunFolder) -> None:
    """Delete what a full disk or killed workers left of checkpoints; only while no worker lives.

    Ray Train's snapshot names every checkpoint it would go on from.
    """
    storage = storage_of(run)
    if "://" in storage:
        return
    folder = Path(storage) / run.run_id
    try:
        known = (folder / "checkpoint_manager_snapshot.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        known = ""
    except (OSError, ValueError):
        return
    for checkpoint in folder.glob("checkpoint_*/"):
        if checkpoint.name not in known:
            shutil.rmtree(checkpoint, ignore_errors=True)


def _again(run: RunFolder) -> str:
    return f"restore {run.path / MODEL_FOLDER}, or remove it and resume the run, which then makes the same model again"
