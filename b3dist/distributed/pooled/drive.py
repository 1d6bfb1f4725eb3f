"""One model over all assets of a lake: a Ray Train run of workers that share every step.

Ray Train keeps a checkpoint after each epoch and starts the group of workers again when one dies; `drive_pooled` on the
same folder goes on from the last checkpoint where a driver has died. The numbers do not depend on how many workers
there are, nor on how often that happened.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from b3dist.config import Config
from b3dist.data.windows import require_calendar_cut
from b3dist.distributed.assignments import Assignments, WorkerId
from b3dist.distributed.cluster import attaches, connected, num_workers_for, require_device
from b3dist.distributed.fit_thread import FitThread
from b3dist.distributed.pooled.checkpoint_storage import known_cause
from b3dist.distributed.pooled.folder import (
    KIND,
    MODEL_FOLDER,
    STORAGE_OPTION,
    Epochs,
    finished_summary,
    read_metrics,
    read_progress,
    remove_own_storage,
    remove_partial_checkpoints,
    storage_of,
)
from b3dist.distributed.summary import summarise
from b3dist.errors import B3distError, ConfigError, RunError, StorageError
from b3dist.run_folder import RunFolder
from b3dist.tracking import Tracker

MAX_RESTARTS = 5
"""Times the workers are started again before the run gives up; it can be resumed."""

_POLL_S = 0.25


class _LeftOut(NamedTuple):
    """Assets that a training left without a bundle, and why, by ticker."""

    skipped: Mapping[str, str]
    failed: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class PooledOptions:
    """Where and how a pooled run trains; nothing here changes the numbers."""

    workers: int | None = None
    """How many; None: as many as the cluster holds and the micro-batches of a step can use."""
    gpus_per_worker: float = 0.0
    """GPUs per worker (nccl); 0 trains on CPUs (gloo), one core each."""
    address: str | None = None
    """GCS address of a running cluster, or "local" for a private one; None: RAY_ADDRESS, or else "local"."""
    tracking: bool = True
    """Log to MLflow."""
    tracking_uri: str | None = None
    """MLflow tracking URI; None: mlflow.db beside the runs."""
    debug: bool = False
    """Show the workers' output."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}", hint="--workers 2")
        if not 0 <= self.gpus_per_worker <= 64:
            raise ConfigError(f"gpus per worker must be between 0 and 64, got {self.gpus_per_worker:g}")
        if 0 < self.gpus_per_worker < 1 and (self.workers or 2) > 1:
            raise ConfigError(
                f"nccl gives each worker a GPU of its own, got {self.gpus_per_worker:g} per worker",
                hint="--gpus-per-worker 1, or --workers 1",
            )

    def to_given(self) -> dict[str, object]:
        """By option of the command line, what a run does not keep and must be told again to go on like this."""
        return {
            "--workers": self.workers,
            "--gpus-per-worker": f"{self.gpus_per_worker:g}" if self.gpus_per_worker else None,
            "--address": self.address,
            "--tracking-uri": self.tracking_uri,
            "--no-mlflow": not self.tracking,
        }

    @property
    def attaches(self) -> bool:
        """Whether the run uses a cluster that is there already."""
        return attaches(self.address)


def require_trainable(config: Config, options: PooledOptions) -> None:
    """Refuse what no worker could train, before a run is made and before Ray is started.

    Raises:
        ConfigError: half a calendar cut or a reversed one, a precision other than fp32, GPUs that are not there, or
            more workers than a step has micro-batches.
    """
    require_calendar_cut(config.data)
    training = config.training
    if options.workers is not None and options.workers > _useful_workers(config):
        raise ConfigError(
            f"{options.workers} workers cannot share a step of {_useful_workers(config)} micro-batches"
            f" ({training.batch_size} windows, {training.micro_batch} each)",
            hint=f"--workers {_useful_workers(config)} or less, or another training.batch_size or training.micro_batch",
        )
    precision = config.training.precision
    if precision != "fp32":
        raise ConfigError(
            f"a pooled model trains in fp32 only, got training.precision {precision}",
            hint="leave out training.precision",
        )
    require_device(precision, gpus_per_worker=options.gpus_per_worker, address=options.address)


def _useful_workers(config: Config) -> int:
    """One per micro-batch of a step."""
    return -(-config.training.batch_size // config.training.micro_batch)


def drive_pooled(
    run: RunFolder, options: PooledOptions, *, on_progress: Callable[[Epochs], None] | None = None
) -> dict[str, Any]:
    """Train the run's model, or go on where an earlier driver ended, write its bundles and summary.json.

    Args:
        run: a new run of kind "pooled", or one to resume.
        options: where and how.
        on_progress: called with all epochs so far whenever there is a new one.

    Returns:
        What summary.json holds: a fleet's, and under `pooled` the model's own; of a run that has finished what it
        held already.

    Raises:
        ConfigError: the run is of another kind, the workers do not fit, or as `require_trainable`.
        RunError: driven by another process, its model is damaged, or the workers gave up.
        StorageError: disk full or not writable, or the checkpoints' storage went away.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the run can be resumed.
    """
    if run.settings.kind != KIND:
        raise ConfigError(f"run {run.run_id} is of kind {run.settings.kind}, expected {KIND}", hint=run.how_to_resume())
    with run.driven():
        if (finished := finished_summary(run)) is not None:
            return finished
        return _Drive(run, options, on_progress).run()


class _Drive:
    """One invocation: connect, start the workers, watch, settle the ledger."""

    def __init__(self, run: RunFolder, options: PooledOptions, on_progress: Callable[[Epochs], None] | None) -> None:
        self._run = run
        self._options = options
        self._on_progress = on_progress or (lambda _epochs: None)
        self._started = time.time()
        self._num_workers = 0
        self._tracking: dict[str, Any] | None = None
        run.remove_leftovers()
        self._assignments = Assignments(run.settings.tickers, ledger_path=run.ledger, assets_dir=run.assets)
        # A resumed run lets failed assets wait again; these would only fail again, for the lake may not change.
        self._failed_before = {
            event["ticker"]: str(event["error"]) for event in self._assignments.events if event["event"] == "failed"
        }

    def run(self) -> dict[str, Any]:
        try:
            self._assignments.open(pid=os.getpid(), host=socket.gethostname())
            if not self._is_complete():
                self._train()
            else:
                if self._failed_before:
                    self._settle(_LeftOut({}, self._failed_before), self._assignments.begin_attempt(1))
                if self._options.tracking:  # the driver that trained it may have been killed before MLflow had it
                    self._log_to(self._open_tracker())
        except (KeyboardInterrupt, B3distError):
            with contextlib.suppress(RunError, StorageError):  # the first error is the one to show
                self._finish("interrupted")
            raise
        finally:
            self._assignments.close()
        return self._finish("finished")

    def _train(self) -> None:
        require_trainable(self._run.settings.config, self._options)
        most = self._options.workers or len(os.sched_getaffinity(0))
        with connected(self._options.address, num_cpus=most, debug=self._options.debug) as ray:
            tracker = None
            self._num_workers = self._choose_workers(ray.cluster_resources())
            attempt = self._assignments.begin_attempt(self._num_workers)
            fit = FitThread(self._make_trainer())
            fit.start()
            if self._options.tracking:
                tracker = self._open_tracker()
            while fit.is_alive():
                self._look()
                fit.join(_POLL_S)
            self._look()
            self._settle(_outcome(fit, self._run, self._options), attempt)
            if tracker is not None:
                self._log_to(tracker)
        remove_own_storage(self._run)

    def _is_complete(self) -> bool:
        left = {asset.ticker for asset in self._assignments.assets.values() if asset.state in ("waiting", "leased")}
        return left <= self._failed_before.keys() and (self._run.path / MODEL_FOLDER).is_dir()

    def _choose_workers(self, resources: dict[str, float]) -> int:
        """As asked, or as many as there is room and work for."""
        possible = num_workers_for(resources, gpus_per_worker=self._options.gpus_per_worker)
        if self._options.workers is None:
            return min(possible, _useful_workers(self._run.settings.config))
        if self._options.workers > possible and not self._options.attaches:
            raise ConfigError(
                f"{self._options.workers} workers asked for, but this machine holds {possible}",
                hint=f"--workers {possible} or less",
            )
        return self._options.workers

    def _make_trainer(self) -> Any:
        from b3dist.distributed.pooled.train_run import make_pooled_trainer
        from b3dist.distributed.pooled.worker import PooledSettings

        settings = self._run.settings
        return make_pooled_trainer(
            PooledSettings(
                lake=settings.lake,
                lake_manifest_hash=settings.lake_manifest_hash,
                config=settings.config,
                tickers=tuple(settings.tickers),
                run=self._run.path,
                use_gpu=self._options.gpus_per_worker > 0,
            ),
            name=self._run.run_id,
            storage=storage_of(self._run),
            num_workers=self._num_workers,
            gpus_per_worker=self._options.gpus_per_worker,
            max_failures=MAX_RESTARTS,
            private_cluster=not self._options.attaches,
        )

    def _look(self) -> None:
        epochs = read_progress(self._run.path)
        if epochs:
            self._on_progress(epochs)

    def _settle(self, left_out: _LeftOut, attempt: int) -> None:
        """Enter what was written into the ledger, and why the rest was not."""
        worker = WorkerId(attempt, 0, os.getpid(), socket.gethostname())
        while (ticker := self._assignments.lease(worker)) is not None:
            if ticker in left_out.failed:
                self._assignments.record_failed(worker, ticker, left_out.failed[ticker])
            else:
                reason = left_out.skipped.get(ticker, "no bundle was written")
                self._assignments.record_skipped(worker, ticker, reason)

    def _open_tracker(self) -> Tracker:
        settings = self._run.settings
        return Tracker.open(
            self._options.tracking_uri,
            runs=self._run.path.parent,
            run_id=self._run.run_id,
            config=settings.config.to_dict(),
            kind=KIND,
            tags={"b3dist.lake_manifest_hash": settings.lake_manifest_hash},
        )

    def _log_to(self, tracker: Tracker) -> None:
        """One child run, of the model; its assets' numbers are in summary.json."""
        tracker.log_asset(self._run.path / MODEL_FOLDER)
        result = tracker.finish(self._summarise("finished"), "FINISHED")
        self._tracking = {"logged_at": time.time(), **result.to_dict()}

    def _summarise(self, state: str) -> dict[str, Any]:
        summary = summarise(self._run, self._assignments, state=state, started=self._started)
        epochs = read_progress(self._run.path)
        summary["totals"] |= {
            "windows_trained": sum(epoch["num_train_windows"] for epoch in epochs),
            "train_seconds": round(sum(epoch["seconds"] for epoch in epochs), 3),
        }
        summary["pooled"] = describe_epochs(epochs)
        summary["metrics"] = read_metrics(self._run)
        return summary

    def _finish(self, state: str) -> dict[str, Any]:
        summary = self._summarise(state)
        summary["tracking"] = self._tracking
        self._run.write_summary(summary)
        return summary


def describe_epochs(epochs: Epochs) -> dict[str, Any]:
    """Speed over all epochs, whichever group of workers did them; `training` leaves out validation and checkpoints."""
    seconds, stepping = (sum(epoch[name] for epoch in epochs) for name in ("seconds", "stepping_s"))
    windows = sum(epoch["num_train_windows"] for epoch in epochs)
    return {
        "epochs": len(epochs),
        "workers": epochs[-1]["workers"] if epochs else None,
        "windows_per_s": round(windows / seconds, 1) if seconds else None,
        "training_windows_per_s": round(windows / stepping, 1) if stepping else None,
        "all_reduce_share": round(sum(epoch["all_reduce_s"] for epoch in epochs) / seconds, 4) if seconds else None,
    }


def _outcome(fit: FitThread, run: RunFolder, options: PooledOptions) -> _LeftOut:
    """The assets without a bundle, and why.

    Raises:
        RunError: the workers failed, or refused.
        StorageError: the checkpoints' storage went away.
    """
    remedy = f"resume with: {run.how_to_resume(options.to_given())}"
    if fit.error is not None:
        remove_partial_checkpoints(run)
        message = next((line for line in reversed(str(fit.error).splitlines()) if line.strip()), "").strip()
        storage = run.settings.options.get(STORAGE_OPTION)
        if storage and (cause := known_cause(storage, message)):
            raise StorageError(
                f"run {run.run_id}: {cause.message}",
                hint=f"{cause.hint}; then {remedy} (with --storage FOLDER, if the old place is gone for good)",
            ) from fit.error
        raise RunError(f"run {run.run_id}: the workers gave up: {message}", hint=remedy) from fit.error
    answer = fit.result.return_value
    if "error" in answer:
        raise RunError(answer["error"], hint=answer["hint"] or remedy)
    return _LeftOut(skipped=answer["skipped"], failed=answer["failed"])
