"""The search on Ray Tune: Tune runs packs of trials on actors that are used again, the study decides what they are.

Not Ray's OptunaSearch and ASHAScheduler: those tell Optuna that a stopped trial is complete, keep the rungs only in
memory, and restore by unpickling. Here every decision is made from the journal, which a resumed sweep just opens.
"""

import logging
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ray import tune
from ray._private import auto_init_hook

from b3dist.distributed.sweep.budget import TimeBudget
from b3dist.distributed.sweep.suggest import WORKER_DEATHS, PackSizes, StopWhenTold, Suggest, TrialEvent
from b3dist.distributed.sweep.tasks import EndedTrials
from b3dist.distributed.sweep.trial import TrialPack, TrialSettings
from b3dist.errors import RunError
from b3dist.tuning.study import Search

_ENVIRONMENT: Final = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # three files a trial that nobody reads
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # Tune's own state is not what a sweep is resumed from
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class SearchThread(threading.Thread):
    """`Tuner.fit` in the background; its error, if any, is kept for the main thread.

    Args:
        search: the open study.
        settings: what the workers need.
        workers: packs that run at once.
        sizes: how many trials a pack is to have.
        storage: a folder for Tune's own files, deleted by the caller.
        notify: called from this thread with every event.
        budget: how long trials may begin; None: no limit.
        debug: let Tune log its errors, each with a traceback; what they say is told in the study and by `error`.
    """

    def __init__(
        self,
        search: Search,
        settings: TrialSettings,
        *,
        workers: int,
        sizes: PackSizes,
        storage: Path,
        notify: Callable[[TrialEvent], None],
        budget: TimeBudget | None = None,
        debug: bool = False,
    ) -> None:
        super().__init__(name="ray-tune-fit", daemon=True)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        logging.getLogger("ray.tune").setLevel(logging.NOTSET if debug else logging.CRITICAL)
        # Else this thread would connect to any cluster, or start one, once an interrupted driver has left its own.
        auto_init_hook.enable_auto_connect = False
        ended = EndedTrials() if settings.stack else None  # else every pack is a single trial, which Tune can stop
        suggest = Suggest(
            search,
            workers=workers,
            sizes=sizes,
            notify=notify,
            tell_ended=ended.add if ended is not None else None,
            budget=budget,
        )
        self._suggest = suggest
        self._tuner = _make_tuner(
            suggest, settings, ended, num_packs=(1 + WORKER_DEATHS) * search.num_left, storage=storage
        )
        self.error: BaseException | None = None

    @property
    def stopped_by(self) -> RunError | None:
        """What ended the search before its trials; known while workers may still train."""
        return self._suggest.stopped_by

    @property
    def out_of_time(self) -> bool:
        """Whether trials were left that might not begin any more; those that ran have ended once this thread has."""
        return self._suggest.out_of_time

    def run(self) -> None:
        """Run every trial that is left."""
        try:
            self._tuner.fit()
        except BaseException as error:  # noqa: BLE001  also the SystemExit that ray.shutdown causes
            self.error = error


def _make_tuner(
    suggest: Suggest, settings: TrialSettings, ended: EndedTrials | None, *, num_packs: int, storage: Path
) -> Any:
    resources = {"cpu": 1.0, "gpu": settings.gpu_share} if settings.gpu_share else {"cpu": 1.0}
    trainable = tune.with_parameters(TrialPack, settings=settings, ended_among=ended.among if ended else None)
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=suggest,
            scheduler=StopWhenTold(suggest),
            num_samples=num_packs,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"pack-{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"pack-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"sweep-{secrets.token_hex(4)}",  # a name used before would silently resume
            storage_path=str(storage),
            failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )
