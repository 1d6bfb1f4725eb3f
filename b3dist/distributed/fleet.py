"""The main job: one Ray Train run in which long-lived workers retrain every asset of a lake.

The main thread watches, logs to MLflow and reports progress while `DataParallelTrainer.fit` runs in another;
so Ctrl-C and SIGTERM are handled here, not by Ray. All state is in the run's folder: `drive_fleet` on the same folder
goes on where any earlier driver ended, however it ended.
"""

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from b3dist.distributed.assignments import Assignments
from b3dist.distributed.cluster import attaches, connected, num_workers_for, require_device
from b3dist.distributed.fit_thread import FitThread
from b3dist.distributed.initial import WarmTrainer, check_source
from b3dist.distributed.ledger import Event
from b3dist.distributed.orphans import wait_for_orphans
from b3dist.distributed.summary import FleetProgress, summarise
from b3dist.errors import B3distError, ConfigError, RunError, StorageError
from b3dist.run_folder import RunFolder
from b3dist.run_summary import FLEET, read_summary
from b3dist.tracking import Tracker

if TYPE_CHECKING:
    from b3dist.distributed.worker import TrainAsset

Engine = Literal["auto", "single", "stack"]

_POLL_S = 0.25


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """Where and how a fleet runs; of the numbers only `engine` changes anything, and only within float error."""

    workers: int | tuple[int, int] | None = None
    """How many, or least and most of an elastic group; None: as many as the cluster holds."""
    gpus_per_worker: float = 0.0
    """Share of a GPU per worker; 0 trains on CPUs, one core each."""
    engine: Engine = "auto"
    """single: one asset after another; stack: packs of assets as one computation; auto: stack on GPUs."""
    address: str | None = None
    """GCS address of a running cluster, or "local" for a private one; None: RAY_ADDRESS, or else "local"."""
    tracking: bool = True
    """Log to MLflow."""
    tracking_uri: str | None = None
    """MLflow tracking URI; None: mlflow.db beside the runs."""
    debug: bool = False
    """Show the workers' output."""

    def __post_init__(self) -> None:
        least, most = self.worker_range or (1, 1)
        if least < 1 or most < least:
            asked = f"{least}:{most}" if isinstance(self.workers, tuple) else self.workers
            raise ConfigError(
                f"workers must be at least 1 and least:most in order, got {asked}", hint="--workers 4 or 2:8"
            )
        if not 0 <= self.gpus_per_worker <= 64:
            raise ConfigError(f"gpus per worker must be between 0 and 64, got {self.gpus_per_worker:g}")
        if isinstance(self.workers, tuple) and self.gpus_per_worker % 1:
            # Ray's elastic policy divides resources with //, and 1.0 // 0.05 is 19.
            raise ConfigError(
                f"an elastic number of workers needs whole GPUs per worker, got {self.gpus_per_worker:g}",
                hint="give a fixed --workers N, or a whole --gpus-per-worker",
            )

    @property
    def stacks(self) -> bool:
        """Whether the workers train packs of assets as one computation."""
        return self.engine == "stack" or (self.engine == "auto" and self.gpus_per_worker > 0)

    def to_kept(self) -> dict[str, Any]:
        """What a new run's settings keep, so that a resumed one trains the rest the same way."""
        return {"engine": "stack" if self.stacks else "single", "gpus_per_worker": self.gpus_per_worker}

    def to_given(self, *, kept: Mapping[str, Any]) -> dict[str, object]:
        """By option of the command line, what a run that keeps `kept` must be told again to go on like this."""
        least, most = self.worker_range or (None, None)
        engine = "stack" if self.stacks else "single"
        return {
            "--workers": most if least == most else f"{least}:{most}",
            "--gpus-per-worker": None
            if self.gpus_per_worker == kept.get("gpus_per_worker", 0.0)
            else f"{self.gpus_per_worker:g}",
            "--engine": None if engine == kept.get("engine", "single") else engine,
            "--address": self.address,
            "--tracking-uri": self.tracking_uri,
            "--no-mlflow": not self.tracking,
        }

    @property
    def attaches(self) -> bool:
        """Whether the fleet runs on a cluster that is there already."""
        return attaches(self.address)

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """Least and most workers; None if the cluster decides."""
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers


def kept_options(run: RunFolder) -> dict[str, Any]:
    """Those of FleetOptions that decide a run's bits, as it was begun with; empty for a run that keeps none.

    Raises:
        RunError: its config.json is damaged.
    """
    options = run.settings.options
    kept = {name: options[name] for name in ("engine", "gpus_per_worker") if name in options}
    if kept.get("engine", "single") not in ("single", "stack") or not isinstance(
        kept.get("gpus_per_worker", 0.0), int | float
    ):
        raise RunError(f"{run.path / 'config.json'} is damaged: options are {kept}", hint="start a new run")
    return kept


def how_to_resume(run: RunFolder, options: FleetOptions) -> str:
    """The command that goes on with a fleet just as it was driven."""
    return run.how_to_resume(options.to_given(kept=run.settings.options))


def drive_fleet(
    run: RunFolder,
    options: FleetOptions,
    *,
    on_progress: Callable[[FleetProgress], None] | None = None,
    train_asset: "TrainAsset | None" = None,
) -> dict[str, Any]:
    """Train every asset of the run that is not trained yet, and write summary.json.

    Args:
        run: a new run, or one to resume.
        options: where and how.
        on_progress: called a few times a second from this thread.
        train_asset: what trains one asset in a worker; None for the real thing.

    Returns:
        What summary.json holds.

    Raises:
        RunError: driven by another process, the source of its warm starts is gone, or the workers gave up.
        StorageError: disk full or not writable.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the run can be resumed.
    """
    started = time.time()
    with run.driven():
        assignments = Assignments(run.settings.tickers, ledger_path=run.ledger, assets_dir=run.assets)
        wait_for_orphans(assignments)
        run.remove_leftovers()
        assignments.open(pid=os.getpid(), host=socket.gethostname())
        again = how_to_resume(run, options)
        watch = _Watch(run, assignments, started=started, on_progress=on_progress, how_to_resume=again)
        assignments.close()  # from here on the coordinator writes the ledger
        return _Drive(run, options, watch, train_asset).run()


def _told_mlflow(run: RunFolder) -> dict[str, Any] | None:
    """What summary.json says of MLflow, if an earlier driver finished the run and nothing was missing there."""
    try:
        summary = read_summary(run.path, run.settings.kind, FLEET) or {}
    except RunError:
        return None  # damaged: written again
    tracking: dict[str, Any] | None = summary.get("tracking")
    return tracking if tracking and summary.get("state") == "finished" and not tracking["not_logged"] else None


class _Drive:
    """One invocation: connect, start the workers, watch, clean up."""

    def __init__(
        self, run: RunFolder, options: FleetOptions, watch: "_Watch", train_asset: "TrainAsset | None"
    ) -> None:
        self._run = run
        self._options = options
        self._watch = watch
        self._train_asset = train_asset

    def run(self) -> dict[str, Any]:
        try:
            if self._watch.num_waiting:
                self._train()
            elif self._options.tracking and not self._watch.is_tracked:  # an earlier driver may have been killed first
                self._watch.track_with(self._open_tracker())
        except (KeyboardInterrupt, B3distError):
            with contextlib.suppress(StorageError):  # the first error is the one to show
                self._watch.finish("interrupted")
            raise
        self._run.remove_leftovers()  # of workers killed while they wrote
        return self._watch.finish("finished")

    def _train(self) -> None:
        if isinstance(self._train_asset, WarmTrainer):
            check_source(self._train_asset.source)
        options = self._options
        precision = self._run.settings.config.training.precision
        require_device(precision, gpus_per_worker=options.gpus_per_worker, address=options.address)
        most = self._options.worker_range[1] if self._options.worker_range else len(os.sched_getaffinity(0))
        storage = self._run.path / "ray"
        try:
            with connected(self._options.address, num_cpus=most, debug=self._options.debug) as ray:
                self._train_on(ray, storage)
        finally:
            shutil.rmtree(storage, ignore_errors=True)

    def _train_on(self, ray: Any, storage: Path) -> None:
        from b3dist.distributed.coordinator import start_coordinator

        coordinator = start_coordinator(
            self._run.settings.tickers, ledger_path=self._run.ledger, assets_dir=self._run.assets
        )
        fit = FitThread(self._make_trainer(ray, coordinator, storage))
        fit.start()
        try:
            if self._options.tracking:
                self._watch.track_with(self._open_tracker())
            while fit.is_alive():
                self._watch.look(ray, coordinator)
                if self._watch.num_waiting == 0:  # Ray takes seconds to notice, and to end; MLflow need not wait
                    self._watch.end_tracking("finished")
                fit.join(_POLL_S)
            self._watch.look(ray, coordinator)
        finally:
            ray.kill(coordinator)
        self._watch.require_complete(fit.error)

    def _open_tracker(self) -> Tracker:
        settings = self._run.settings
        return Tracker.open(
            self._options.tracking_uri,
            runs=self._run.path.parent,
            run_id=self._run.run_id,
            config=settings.config.to_dict(),
            tags={"b3dist.lake_manifest_hash": settings.lake_manifest_hash},
        )

    def _make_trainer(self, ray: Any, coordinator: Any, storage: Path) -> Any:
        from b3dist.distributed.train_run import make_trainer
        from b3dist.distributed.worker import WorkerSettings

        run = self._run
        settings = WorkerSettings(
            coordinator=coordinator,
            lake=run.settings.lake,
            lake_manifest_hash=run.settings.lake_manifest_hash,
            config=run.settings.config,
            assets_dir=run.assets,
            gpu_share=self._options.gpus_per_worker,
            stack=self._options.stacks,
            train_asset=self._train_asset,
        )
        return make_trainer(
            settings,
            name=run.run_id,
            storage=storage,
            num_workers=self._num_workers(ray),
            gpus_per_worker=self._options.gpus_per_worker,
            private_cluster=not self._options.attaches,
        )

    def _num_workers(self, ray: Any) -> int | tuple[int, int]:
        """The number of workers: never more than assets to train, nor than a private cluster can hold."""
        resources = ray.cluster_resources()
        possible = num_workers_for(resources, gpus_per_worker=self._options.gpus_per_worker)
        waiting = self._watch.num_waiting
        if self._options.worker_range is None:
            return min(possible, waiting)
        least, most = (min(number, waiting) for number in self._options.worker_range)
        if least > possible and not self._options.attaches:
            raise ConfigError(
                f"{least} workers asked for, but this machine holds {possible}", hint=f"--workers {possible} or less"
            )
        return (least, most) if isinstance(self._options.workers, tuple) and least < most else most


class _Watch:
    """What the driver knows of a run: replayed from the ledger, then followed by asking the coordinator."""

    def __init__(
        self,
        run: RunFolder,
        assignments: Assignments,
        *,
        started: float,
        on_progress: Callable[[FleetProgress], None] | None,
        how_to_resume: str,
    ) -> None:
        self._run = run
        self._remedy = f"resume with: {how_to_resume}"
        self._known = assignments
        self._started = started
        self._on_progress = on_progress
        self._tracker: Tracker | None = None
        self._tracking = _told_mlflow(run)
        self._stopped: str | None = None
        self._storage_error: str | None = None

    @property
    def num_waiting(self) -> int:
        """Assets still to train."""
        return self._known.count("waiting") + self._known.count("leased")

    @property
    def is_tracked(self) -> bool:
        """Whether MLflow has the whole of a finished run."""
        return self._tracking is not None

    def track_with(self, tracker: Tracker) -> None:
        """Log what is trained already (a killed driver may not have), and from now on what gets trained."""
        self._tracker = tracker
        for event in self._known.events:
            self._log(event)

    def look(self, ray: Any, coordinator: Any) -> None:
        """Ask the coordinator what happened and pass it on."""
        try:
            progress = ray.get(coordinator.progress.remote(len(self._known.events)), timeout=30)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return  # restarting (it reads its state from the ledger), or the machine is very busy
        for event in progress.events:
            self._known.follow(event)
            self._log(event)
        self._stopped, self._storage_error = progress.stopped, progress.storage_error
        if progress.cannot_start is not None:  # Ray Train itself would try for ever
            raise RunError(
                f"run {self._run.run_id}: no worker could start: {progress.cannot_start}",
                hint=f"mend that (--debug shows the workers' output), then {self._remedy}",
            )
        if self._on_progress is not None:
            self._on_progress(FleetProgress.of(self._known, now=time.time()))

    def require_complete(self, fit_error: BaseException | None) -> None:
        """Raise if the workers ended with assets left to train."""
        if self._storage_error is not None:
            raise StorageError(self._storage_error, hint=f"free some space or make it writable, then {self._remedy}")
        if self._stopped is not None:
            raise RunError(f"run {self._run.run_id} stopped: {self._stopped}", hint=self._remedy)
        if self.num_waiting:
            cause = f": {type(fit_error).__name__}: {fit_error}" if fit_error else ""
            raise RunError(
                f"run {self._run.run_id}: the workers ended with {self.num_waiting} assets left{cause}",
                hint=self._remedy,
            ) from fit_error

    def end_tracking(self, state: str) -> None:
        """Wait until MLflow has everything, and end the parent run; only the first call does anything."""
        if self._tracker is None:
            return
        summary = summarise(self._run, self._known, state=state, started=self._started)
        result = self._tracker.finish(summary, "FINISHED" if state == "finished" else "KILLED")
        self._tracker = None
        self._tracking = {"logged_at": time.time(), **result.to_dict()}

    def finish(self, state: str) -> dict[str, Any]:
        """End tracking, write summary.json and return it."""
        self.end_tracking(state)
        summary = summarise(self._run, self._known, state=state, started=self._started)
        summary["tracking"] = self._tracking
        self._run.write_summary(summary)
        return summary

    def _log(self, event: Event) -> None:
        if self._tracker is None:
            return
        if event["event"] == "trained":
            self._tracker.log_asset(self._run.assets / event["ticker"])
        elif event["event"] == "failed":
            self._tracker.log_failure(event["ticker"], event["error"])
