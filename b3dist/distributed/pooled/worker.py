"""What each Ray Train worker of a pooled run does: its share of every step, then its share of the bundles."""

import dataclasses
import os
import pickle
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train

from b3dist.config import Config
from b3dist.errors import B3distError, RunError, StorageError, describe_damage
from b3dist.run_folder import replace_json

if TYPE_CHECKING:  # imported in the workers only
    import torch

    from b3dist.data.pooled import PooledData
    from b3dist.training.pooled import PooledFitting

_STATE = "state.pt"


@dataclass(frozen=True, kw_only=True)
class PooledSettings:
    """What a worker needs to know; travels once, when the group starts."""

    lake: Path
    lake_manifest_hash: str
    config: Config
    tickers: tuple[str, ...]
    run: Path
    """The run's folder, on storage that every worker sees."""
    use_gpu: bool = False


def train_pooled(loop_config: Mapping[str, PooledSettings]) -> dict[str, Any]:
    """Train, write and say how it ended: the `train_loop_per_worker` of a pooled run.

    An error that every worker runs into alike is returned and not raised, for Ray Train would start the group again.

    Returns:
        On every worker: {"skipped": reasons by ticker, "failed": the same}, or {"error": message, "hint": remedy}.
    """
    settings = loop_config["settings"]
    try:
        return _train(settings)
    except StorageError:
        raise  # of one worker alone: the others wait for it, so the group must start again
    except B3distError as error:
        return {"error": error.message, "hint": error.hint}


def _train(settings: PooledSettings) -> dict[str, Any]:
    from b3dist.data.lake import Lake
    from b3dist.data.pooled import load_pooled
    from b3dist.training.pooled import PooledFitting

    lake = Lake(settings.lake)
    if lake.manifest_hash != settings.lake_manifest_hash:
        raise RunError(f"the lake {settings.lake} was changed while the run went on", hint="start a new run")
    data = load_pooled(lake, settings.tickers, settings.config.data)
    config = dataclasses.replace(settings.config, data=data.config)
    fitting = PooledFitting(data, config, device="cuda" if settings.use_gpu else "cpu")
    progress = _Progress(settings.run, fitting)
    progress.restore()
    clock = _clock(fitting)
    for record in fitting.epochs():
        # An epoch's seconds hold the checkpoint of the one before it.
        before, clock = clock, _clock(fitting)
        timing = {name: clock[name] - before[name] for name in clock}
        progress.add(
            {
                **asdict(record),
                **timing,
                "num_train_windows": len(data.train),
                "workers": fitting.workers.size,
                "pid": os.getpid(),
            }
        )
    return {"skipped": _write(fitting, data, config, settings), "failed": dict(data.failed)}


def _clock(fitting: "PooledFitting") -> dict[str, float]:
    """Seconds so far: of everything, in training steps, and in all-reduce."""
    return {
        "seconds": time.perf_counter(),
        "stepping_s": fitting.stepping_s,
        "all_reduce_s": fitting.workers.waited_s,
    }


class _Progress:
    """A checkpoint after every epoch, and the same told to the driver in a file."""

    def __init__(self, run: Path, fitting: "PooledFitting") -> None:
        self._run = run
        self._fitting = fitting
        self._epochs: list[dict[str, Any]] = []

    def restore(self) -> None:
        """Go on after the last epoch that a former group of workers has reported."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            self._epochs = restore_state(self._fitting, Path(folder), known_as=checkpoint.path)

    def add(self, entry: dict[str, Any]) -> None:
        """Report an epoch: every worker does, the first one with the checkpoint."""
        import torch

        self._epochs.append(entry)
        if self._fitting.workers.rank > 0:
            ray.train.report(entry)
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save({**self._fitting.state(), "progress": self._epochs}, Path(folder) / _STATE)
            ray.train.report(entry, checkpoint=ray.train.Checkpoint.from_directory(folder))
        write_progress(self._run, self._epochs)


def restore_state(fitting: "PooledFitting", folder: Path, *, known_as: str) -> list[dict[str, Any]]:
    """Put a checkpoint's state into the fitting, and return the epochs reported up to it.

    Args:
        fitting: of the same data and configuration.
        folder: the checkpoint's, or a copy of it on this machine.
        known_as: where the user finds it.

    Raises:
        RunError: it is damaged, for whichever worker reads it.
    """
    import torch

    try:
        state = torch.load(folder / _STATE, weights_only=True, map_location="cpu")
        epochs: list[dict[str, Any]] = state.pop("progress")
        fitting.restore(state)
    except (OSError, EOFError, RuntimeError, KeyError, ValueError, TypeError, pickle.UnpicklingError) as error:
        what = describe_damage(error).partition("\n")[0].rstrip(".") or "it is cut short"
        raise RunError(
            f"the checkpoint {known_as} is damaged: {what}",
            hint=f"remove {known_as.rpartition('/')[0]}, which holds all of this run, and resume: it begins anew,"
            " to the same numbers",
        ) from error
    return epochs


def write_progress(run: Path, epochs: list[dict[str, Any]]) -> None:
    """Tell the driver, and whoever looks into the run's folder, which epochs are done.

    Raises:
        StorageError: disk full or not writable.
    """
    try:
        replace_json(run / "progress.json", {"epochs": epochs})
    except OSError as error:
        raise StorageError(f"cannot write {run / 'progress.json'}: {error.strerror}") from error


def _write(fitting: "PooledFitting", data: "PooledData", config: Config, settings: PooledSettings) -> dict[str, str]:
    """Write the bundles, each worker its share, then the first worker the model's; those that are there are kept."""
    from b3dist.training.pooled_bundle import MODEL_FOLDER, PooledWriter, judged, read_predictions

    writer = PooledWriter(fitting, config, lake_manifest_hash=settings.lake_manifest_hash)
    assets_dir = settings.run / "assets"
    reasons = {asset.ticker: judged(asset) for asset in data.assets}
    for number, asset in fitting.workers.mine(data.assets):
        if reasons[asset.ticker] is None and not (assets_dir / asset.ticker).is_dir():
            writer.write_asset(number, assets_dir)
    fitting.workers.combine(_nothing(fitting))  # until all have written
    folder = settings.run / MODEL_FOLDER
    if fitting.workers.rank == 0 and not folder.is_dir():
        written = [ticker for ticker, reason in reasons.items() if reason is None]
        writer.write_model(folder, read_predictions(assets_dir, written))
    return {**data.skipped, **{ticker: reason for ticker, reason in reasons.items() if reason is not None}}


def _nothing(fitting: "PooledFitting") -> "torch.Tensor":
    import torch

    return torch.zeros(1, device=fitting.device)
