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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b3dist.distributed.assignments import Assignments
from b3dist.distributed.cluster import connected, num_workers_for, require_device
from b3dist.distributed.fit_thread import FitThread
from b3dist.distributed.fleet.initial import WarmTrainer, check_source
from b3dist.distributed.fleet.options import FleetOptions, how_to_resume
from b3dist.distributed.fleet.orphans import wait_for_orphans
from b3dist.distributed.fleet.watch import FleetWatch
from b3dist.distributed.summary import FleetProgress
from b3dist.errors import B3distError, ConfigError, StorageError
from b3dist.run_folder import RunFolder
from b3dist.tracking import Tracker

if TYPE_CHECKING:
    from b3dist.distributed.fleet.worker import TrainAsset

_POLL_S = 0.25


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
        watch = FleetWatch(run, assignments, started=started, on_progress=on_progress, how_to_resume=again)
        assignments.close()  # from here on the coordinator writes the ledger
        return _Drive(run, options, watch, train_asset).run()


class _Drive:
    """One invocation: connect, start the workers, watch, clean up."""

    def __init__(
        self, run: RunFolder, options: FleetOptions, watch: FleetWatch, train_asset: "TrainAsset | None"
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
        from b3dist.distributed.fleet.coordinator import start_coordinator

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
        from b3dist.distributed.fleet.train_run import make_trainer
        from b3dist.distributed.fleet.worker import WorkerSettings

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
