"""Drive a sweep from wherever it stands to its verdict: search, finalists, held-out assets, best.yaml.

Everything is in the sweep's folder: trials in Optuna's journal, later trainings in the ledger. So driving the same
folder again goes on where any earlier driver ended, however it ended.
"""

import contextlib
import dataclasses
import os
import queue
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from b3dist.distributed.cluster import connected, num_workers_for, require_device
from b3dist.distributed.fleet.options import FleetOptions
from b3dist.distributed.ledger import Ledger
from b3dist.distributed.sweep.agreement import require_whole_journal, tell_ledger
from b3dist.distributed.sweep.budget import TimeBudget
from b3dist.distributed.sweep.evaluations import Evaluations
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.outcome import Outcome, finished_summary, write_outcome
from b3dist.distributed.sweep.progress import SweepProgress
from b3dist.distributed.sweep.stages import Stages
from b3dist.distributed.sweep.status import SEARCH_STOPPED
from b3dist.distributed.sweep.tracking import SweepTracking
from b3dist.errors import B3distError, ConfigError, RunError, StorageError
from b3dist.tuning.study import Search, SearchSettings, sure_epochs

if TYPE_CHECKING:
    from b3dist.distributed.sweep.suggest import PackSizes

_POLL_S = 0.25


def drive_sweep(
    sweep: SweepFolder,
    options: FleetOptions,
    *,
    budget: TimeBudget | None = None,
    on_progress: Callable[[SweepProgress], None] | None = None,
) -> dict[str, Any]:
    """Run what is left of a sweep, write best.yaml and summary.json.

    Args:
        sweep: a new one, or one to resume.
        options: where and how; nothing in it changes the numbers of a trial.
        budget: how long trials may begin; what comes after the search takes its time all the same. None: no limit.
        on_progress: called a few times a second from this thread.

    Returns:
        What summary.json holds; of a sweep that `has_ended` what it held already, without anything started.

    Raises:
        RunError: driven by another process, in trouble that no trial is to blame for, or finished with nothing to
            compare with, as the starting values themselves cannot be trained.
        StorageError: disk full or not writable.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the sweep can be resumed.
    """
    if isinstance(options.workers, tuple):
        raise ConfigError("a sweep needs a fixed number of workers", hint="--workers 4")
    started = time.time()
    with sweep.run.driven():
        if (finished := finished_summary(sweep)) is not None and has_ended(finished, budget):
            return _judged(finished)
        require_possible(sweep, options)
        if finished is not None:
            sweep.withdraw_verdict()
        evaluations = Evaluations.of(sweep.run.ledger)
        ledger = Ledger(sweep.run.ledger)
        try:
            ledger.append("opened", pid=os.getpid(), host=socket.gethostname(), engine=engine_of(sweep, options))
            search = Search(search_settings(sweep), sweep.journal)
            tell_ledger(search, ledger, sweep)
            drive = _Drive(sweep, options, search, ledger, evaluations, started, budget, on_progress)
            return _judged(drive.run())
        finally:
            ledger.close()


def has_ended(finished: Mapping[str, Any], budget: TimeBudget | None) -> bool:
    """Whether a verdict is the last word: the search was not cut short by time, or may not go on now either."""
    cut_short = finished["stopped"] is not None and finished["judged"]
    return not cut_short or (budget is not None and budget.is_spent)


def _judged(summary: dict[str, Any]) -> dict[str, Any]:
    if not summary["judged"]:
        raise RunError(
            f"sweep {summary['run_id']}: {summary['verdict']['reason']}",
            hint="start a new sweep from settings that can be trained",
        )
    return summary


def require_possible(sweep: SweepFolder, options: FleetOptions) -> None:
    """Refuse what cannot go on, before Ray starts or anything is changed.

    Raises:
        ConfigError: this machine has no GPU, or not the precision.
        RunError: the journal or the ledger is damaged.
    """
    precision = sweep.config.training.precision
    require_device(precision, gpus_per_worker=options.gpus_per_worker, address=options.address)
    require_whole_journal(sweep)


def engine_of(sweep: SweepFolder, options: FleetOptions) -> Literal["single", "stack"]:
    """What this invocation trains with: the sweep's own engine, unless told otherwise."""
    return sweep.plan.engine if options.engine == "auto" else options.engine


def how_to_resume(sweep: SweepFolder, options: FleetOptions, budget: TimeBudget | None = None) -> str:
    """The command that goes on with a sweep just as it was driven, for as many hours once more."""
    driven = dataclasses.replace(options, engine=engine_of(sweep, options))
    kept = {"engine": sweep.plan.engine, "gpus_per_worker": sweep.plan.gpus_per_worker}
    hours = None if budget is None else f"{budget.hours:g}"
    return sweep.run.how_to_resume({"--max-hours": hours, **driven.to_given(kept=kept)})


def search_settings(sweep: SweepFolder) -> SearchSettings:
    """What the search is asked to do."""
    plan, config = sweep.plan, sweep.config
    return SearchSettings(
        space=plan.space,
        start=plan.space.start(config),
        budget=plan.trials,
        epochs=sure_epochs(config),
        seed=config.seed,
        two_objectives=plan.two_objectives,
        halving=plan.halving,
    )


class _Drive:
    """One invocation."""

    def __init__(
        self,
        sweep: SweepFolder,
        options: FleetOptions,
        search: Search,
        ledger: Ledger,
        evaluations: Evaluations,
        started: float,
        budget: TimeBudget | None,
        on_progress: Callable[[SweepProgress], None] | None,
    ) -> None:
        self._sweep = sweep
        self._options = options
        self._search = search
        self._ledger = ledger
        self._evaluations = evaluations
        self._started = started
        self._budget = budget
        self._out_of_time = False
        self._on_progress = on_progress
        self._tracking = SweepTracking(sweep, options)
        self._engine = engine_of(sweep, options)
        self._most_models: int | None = None
        self._outcome: Outcome | None = None

    def run(self) -> dict[str, Any]:
        try:
            most = self._options.worker_range[1] if self._options.worker_range else len(os.sched_getaffinity(0))
            storage = self._sweep.run.path / "ray"
            try:
                with connected(self._options.address, num_cpus=most, debug=self._options.debug) as ray:
                    self._tracking.open()
                    self._run_search(ray, storage)
                    self._run_stages(ray)
            finally:
                shutil.rmtree(storage, ignore_errors=True)
        except (KeyboardInterrupt, B3distError):
            with contextlib.suppress(StorageError):  # the first error is the one to show
                self._finish("interrupted")
            raise
        return self._finish("finished")

    def _run_search(self, ray: Any, storage: Any) -> None:
        from b3dist.distributed.sweep.search_phase import SearchThread
        from b3dist.distributed.sweep.suggest import TrialEvent

        self._track_trials()
        if self._search.num_left == 0 or self._search.baseline_failed:
            return
        if self._budget is not None and self._budget.is_spent and self._search.baseline_begun:
            self._stop_search()
            return
        happened: queue.SimpleQueue[TrialEvent] = queue.SimpleQueue()
        thread = SearchThread(
            self._search,
            self._settings(),
            workers=self._workers(ray),
            sizes=self._pack_sizes(ray),
            storage=storage,
            notify=happened.put,
            budget=self._budget,
            debug=self._options.debug,
        )
        thread.start()
        while True:
            alive = thread.is_alive()
            while not happened.empty():
                event = happened.get()
                self._ledger.append("trial", number=event.number, state=event.state, time=round(event.at, 3))
            self._track_trials()
            self._show("search")
            if (trouble := thread.stopped_by) is not None:
                raise RunError(f"sweep {self._sweep.run.run_id}: {trouble.message}", hint=trouble.hint)
            if not alive:
                break
            thread.join(_POLL_S)
        if thread.out_of_time and thread.error is None:
            self._stop_search()
        elif self._search.num_left and not self._search.baseline_failed:
            cause = f": {type(thread.error).__name__}: {thread.error}" if thread.error else ""
            raise RunError(
                f"sweep {self._sweep.run.run_id}: Ray Tune ended with {self._search.num_left} trials left{cause}",
                hint=f"resume with: {how_to_resume(self._sweep, self._options, self._budget)}",
            ) from thread.error

    def _stop_search(self) -> None:
        """Note that the time was up before all trials had begun."""
        self._out_of_time = True
        self._ledger.append(SEARCH_STOPPED, by="--max-hours", left=self._search.num_left)

    def _run_stages(self, ray: Any) -> None:
        from b3dist.distributed.sweep.tasks import as_task, evaluate

        settings = ray.put(self._settings())
        task = as_task(evaluate, gpus=self._options.gpus_per_worker)
        stages = Stages(
            self._sweep,
            self._search.records(),
            self._evaluations,
            ray=ray,
            start=lambda trainings: task.remote(settings, trainings),
            at_once=self._workers(ray),
            pack_size=self._models_at_once(ray),
            ledger=self._ledger,
            on_progress=self._show,
        )
        self._outcome = stages.run()

    def _settings(self) -> Any:
        from b3dist.distributed.sweep.trial import TrialSettings

        settings = self._sweep.run.settings
        return TrialSettings(
            lake=settings.lake,
            lake_manifest_hash=settings.lake_manifest_hash,
            base=settings.config,
            cohort=tuple(self._sweep.plan.cohort),
            stack=self._engine == "stack",
            gpu_share=self._options.gpus_per_worker,
        )

    def _pack_sizes(self, ray: Any) -> "PackSizes":
        from b3dist.distributed.sweep.suggest import PackSizes

        if self._engine == "single":
            return PackSizes()
        if self._sweep.plan.trials_at_once is not None:
            return PackSizes(exactly=self._sweep.plan.trials_at_once)
        return PackSizes(most=max(1, self._models_at_once(ray) // len(self._sweep.plan.cohort)))

    def _models_at_once(self, ray: Any) -> int:
        """How many models a worker trains as one computation."""
        from b3dist.distributed.sweep.tasks import as_task, models_at_once

        if self._engine == "single":
            return 1
        if self._most_models is None:
            task = as_task(models_at_once, gpus=self._options.gpus_per_worker)
            self._most_models = int(ray.get(task.remote(self._settings())))
        return self._most_models

    def _workers(self, ray: Any) -> int:
        possible = num_workers_for(ray.cluster_resources(), gpus_per_worker=self._options.gpus_per_worker)
        wanted = self._options.worker_range[1] if self._options.worker_range else possible
        if wanted > possible and not self._options.attaches:
            raise ConfigError(
                f"{wanted} workers asked for, but this machine holds {possible}", hint=f"--workers {possible} or less"
            )
        return wanted

    def _track_trials(self) -> None:
        for record in self._search.records():
            if record.state in ("complete", "pruned", "failed"):
                self._tracking.log_trial(record)

    def _show(self, stage: str, done: int = 0, total: int = 0) -> None:
        if self._on_progress is not None:
            self._on_progress(
                SweepProgress.of(
                    self._search.records(),
                    self._sweep.plan,
                    stage=stage,
                    done=done,
                    total=total,
                    budget_left_s=None if self._budget is None else self._budget.left_s,
                )
            )

    def _finish(self, state: str) -> dict[str, Any]:
        summary = write_outcome(
            self._sweep,
            self._search.records(),
            self._outcome,
            state=state,
            started=self._started,
            out_of_time=self._out_of_time,
        )
        summary["engine"] = self._engine
        summary["tracking"] = self._tracking.finish(summary, state)
        self._sweep.run.write_summary(summary)
        return summary
