"""The search on Ray Tune: Tune runs trials on actors that are used again, the study decides what runs and what stops.

Not Ray's OptunaSearch and ASHAScheduler: those tell Optuna that a stopped trial is complete, keep the rungs only in
memory, and restore by unpickling. Here every decision is made from the journal, which a resumed sweep just opens.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from b3dist.distributed.sweep.trial import REPORT, CohortTrial, TrialSettings
from b3dist.tuning.scores import AssetScore, CohortScore
from b3dist.tuning.study import Search

_ENVIRONMENT: Final = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # three files a trial that nobody reads
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # Tune's own state is not what a sweep is resumed from
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}
_WORKER_DEATHS: Final = 2
"""How often a trial is begun again because its worker died."""


@dataclass(frozen=True, kw_only=True)
class TrialEvent:
    """A trial began, advanced or ended."""

    number: int
    state: str
    """running, complete, pruned or failed."""
    at: float
    """Seconds since 1970."""


class SearchThread(threading.Thread):
    """`Tuner.fit` in the background; its error, if any, is kept for the main thread.

    Args:
        search: the open study.
        settings: what the workers need.
        workers: trials that run at once.
        gpus_per_worker: share of a GPU per trial.
        storage: a folder for Tune's own files, deleted by the caller.
        notify: called from this thread with every event.
    """

    def __init__(
        self,
        search: Search,
        settings: TrialSettings,
        *,
        workers: int,
        gpus_per_worker: float,
        storage: Path,
        notify: Callable[[TrialEvent], None],
    ) -> None:
        super().__init__(name="ray-tune-fit", daemon=True)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._tuner = _make_tuner(
            _Suggest(search, workers, notify), settings, search.num_left, gpus_per_worker, storage
        )
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run every trial that is left."""
        try:
            self._tuner.fit()
        except BaseException as error:  # noqa: BLE001  also the SystemExit that ray.shutdown causes
            self.error = error


def _make_tuner(
    suggest: "_Suggest", settings: TrialSettings, num_trials: int, gpus_per_worker: float, storage: Path
) -> Any:
    resources = {"cpu": 1.0, "gpu": gpus_per_worker} if gpus_per_worker else {"cpu": 1.0}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(CohortTrial, settings=settings), resources),
        tune_config=tune.TuneConfig(
            search_alg=suggest,
            scheduler=_StopWhenTold(suggest),
            num_samples=num_trials,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"sweep-{secrets.token_hex(4)}",  # a name used before would silently resume
            storage_path=str(storage),
            failure_config=tune.FailureConfig(max_failures=_WORKER_DEATHS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )


class _Suggest(Searcher):  # type: ignore[misc]
    """Tune's side of the study: suggestions out, reports and endings in; all calls come from Tune's thread."""

    def __init__(self, search: Search, workers: int, notify: Callable[[TrialEvent], None]) -> None:
        super().__init__()
        self._search = search
        self._workers = workers
        self._notify = notify
        self._numbers: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes a copy of itself to the disk that no sweep is ever resumed from."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial, unless as many run as there are workers."""
        if len(self._numbers) >= self._workers:
            return None
        suggestion = self._search.ask()
        if suggestion is None:
            return str(Searcher.FINISHED)
        self._numbers[trial_id] = suggestion.number
        self._tell(suggestion.number, "running")
        # As text: Tune would put each value into names, and hidden sizes would come back as they went.
        return {"params": json.dumps(suggestion.params)}

    def on_epoch(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Note a report; whether the trial is to be stopped."""
        report = json.loads(result[REPORT])
        number = self._numbers[trial_id]
        if "error" in report:
            return False
        score, attributes = _read(report)
        stop = self._search.report(number, report["epoch"], score)
        if stop:
            self._search.tell(number, score, pruned=True, attributes=attributes)
            self._ended(trial_id, "pruned")
        return stop

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """End a trial that finished, or whose workers died."""
        if trial_id not in self._numbers:
            return  # stopped by on_epoch
        number = self._numbers[trial_id]
        report = json.loads(result[REPORT]) if result and REPORT in result else None
        if error or report is None:
            self._search.fail(number, f"its worker died {_WORKER_DEATHS + 1} times")
            self._ended(trial_id, "failed")
        elif "error" in report:
            self._search.fail(number, report["error"], attributes={"seconds": report["seconds"]})
            self._ended(trial_id, "failed")
        else:
            score, attributes = _read(report)
            self._search.report(number, report["epoch"], score)
            self._search.tell(number, score, pruned=False, attributes=attributes)
            self._ended(trial_id, "complete")

    def save(self, checkpoint_path: str) -> None:
        """The journal holds everything."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal holds everything."""

    def _ended(self, trial_id: str, state: str) -> None:
        self._tell(self._numbers.pop(trial_id), state)

    def _tell(self, number: int, state: str) -> None:
        self._notify(TrialEvent(number=number, state=state, at=time.time()))


class _StopWhenTold(FIFOScheduler):  # type: ignore[misc]
    """Stops the trials that the study's pruner names."""

    def __init__(self, suggest: _Suggest) -> None:
        super().__init__()
        self._suggest = suggest

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Called after each epoch but the last."""
        stop = self._suggest.on_epoch(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)


def _read(report: Mapping[str, Any]) -> tuple[CohortScore, dict[str, Any]]:
    """A report's pooled score, and what the study keeps beside it."""
    score = CohortScore.pooled([AssetScore.from_dict(entry) for entry in report["assets"].values()])
    attributes = {
        "epochs": report["epoch"],
        "seconds": report["seconds"],
        "windows_trained": report["windows_trained"],
        "error_ratio": score.error_ratio,
        "macro_f1": score.macro_f1,
        "assets": report["assets"],
    }
    return score, attributes
