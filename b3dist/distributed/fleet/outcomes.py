"""The little that ledger and summary keep of a trained asset; everything else is in its bundle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b3dist.errors import RunError, describe_damage

if TYPE_CHECKING:  # the driver must not pay seconds for importing torch and scikit-learn
    from b3dist.training.asset import TrainedAsset


def describe_trained(trained: "TrainedAsset") -> dict[str, Any]:
    """An asset that was just trained."""
    return {
        "seconds": round(trained.seconds, 3),
        "num_train_windows": trained.num_train_windows,
        "epochs": trained.epochs,
        "windows_trained": trained.windows_trained,
        "metrics": digest(trained.metrics),
    }


def describe_bundle(folder: Path) -> dict[str, Any]:
    """The same of an asset whose worker died between writing its folder and saying so; its seconds are not known.

    Raises:
        RunError: a file is missing or damaged.
    """
    try:
        facts = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        windows = facts["splits"]["train"]["num_windows"]
        return {
            "seconds": None,
            "num_train_windows": windows,
            "epochs": metrics["epochs"],
            "windows_trained": windows * metrics["epochs"],
            "metrics": digest(metrics),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder} is no complete bundle: {describe_damage(error)}",
            hint="remove that folder and resume the run: it trains again",
        ) from error


def digest(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The few numbers of metrics.json that a fleet table shows; None where undefined."""
    test = metrics["test"]
    majority, persistence = test["baselines"]["majority"], test["baselines"]["persistence"]
    return {
        "accuracy": test["accuracy"],
        "macro_f1": test["macro_f1"],
        "majority_accuracy": majority["accuracy"],
        "majority_macro_f1": majority["macro_f1"],
        "ic": test["return"]["ic"],
        "return_mae": test["return"]["mae"],
        "persistence_return_mae": persistence["return"]["mae"],
        "overfit_ratio": metrics["overfit_ratio"],
        "best_epoch": metrics["best_epoch"],
    }
