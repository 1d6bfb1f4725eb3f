"""Between Ray Tune and the study: what Tune calls a trial is a pack of the study's trials, trained by one worker."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from b3dist.distributed.sweep.budget import TimeBudget
from b3dist.distributed.sweep.trial import REPORTS, TRIALS
from b3dist.distributed.sweep.trouble import TROUBLE
from b3dist.errors import RunError
from b3dist.tuning.scores import AssetScore, CohortScore
from b3dist.tuning.study import Search

WORKER_DEATHS: Final = 2
"""How often a pack is begun again because its worker died."""
_SHARE: Final = 4
"""An automatic pack is at most this part of the trials left to a worker: later suggestions learn from earlier ones."""


@dataclass(frozen=True, kw_only=True)
class TrialEvent:
    """A trial began, advanced or ended."""

    number: int
    state: str
    """running, complete, pruned or failed."""
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class PackSizes:
    """How many trials are trained at once by a worker."""

    most: int = 1
    """That fit."""
    exactly: int | None = None
    """That were asked for."""

    def next(self, left: int, workers: int) -> int:
        """Of the next pack, with so many trials left."""
        if self.exactly is not None:
            return self.exactly
        return max(1, min(self.most, -(-left // (_SHARE * workers))))


@dataclass
class _Pack:
    """Trials that one worker trains at the same time."""

    config: dict[str, Any]
    """For the worker."""
    numbers: list[int]
    """Those that have not ended."""
    deaths: int = 0
    """Of its workers."""


class Suggest(Searcher):  # type: ignore[misc]
    """Tune's side of the study: suggestions out, reports and endings in; all calls come from Tune's thread.

    What Tune calls a trial is a pack of the study's trials.

    Args:
        search: the open study.
        workers: packs that run at once.
        sizes: how many trials a pack is to have.
        notify: called with every event.
        tell_ended: called with trials that ended while others of their pack go on; None: a pack is a single trial.
        budget: how long trials may begin; the one with the starting values begins all the same. None: no limit.
    """

    def __init__(
        self,
        search: Search,
        *,
        workers: int,
        sizes: PackSizes,
        notify: Callable[[TrialEvent], None],
        tell_ended: Callable[[list[int]], None] | None,
        budget: TimeBudget | None = None,
    ) -> None:
        super().__init__()
        self._search = search
        self._workers = workers
        self._sizes = sizes
        self._notify = notify
        self._tell_ended = tell_ended
        self._budget = budget
        self._running: dict[str, _Pack] = {}
        self._lost: list[_Pack] = []
        self.stopped_by: RunError | None = None
        """What ended the search before its trials; those it left running are begun again by a resumed sweep."""
        self.out_of_time = False
        """Whether trials were left that might not begin any more."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes a copy of itself to the disk that no sweep is ever resumed from."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next pack, unless as many run as there are workers."""
        if len(self._running) >= self._workers:
            return None
        if self.stopped_by is not None or self._search.baseline_failed:  # there would be nothing to compare with
            return str(Searcher.FINISHED)
        pack = self._lost.pop() if self._lost else self._ask()
        if pack is None:
            return str(Searcher.FINISHED)
        self._running[trial_id] = pack
        return pack.config

    def on_epoch(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Note a pack's reports; whether none of its trials goes on."""
        if TROUBLE in result:
            del self._running[trial_id]
            trouble = json.loads(result[TROUBLE])
            self.stopped_by = RunError(trouble["message"], hint=trouble["hint"])
            return True
        pack, ended = self._running[trial_id], []
        for number, report in json.loads(result[REPORTS]).items():
            if int(number) in pack.numbers and (state := self._note(int(number), report)) is not None:
                pack.numbers.remove(int(number))
                ended.append(int(number))
                self._tell(int(number), state)
        if not pack.numbers:
            del self._running[trial_id]
            return True
        if ended and self._tell_ended is not None:
            self._tell_ended(ended)
        return False

    def on_death(self, trial_id: str) -> None:
        """Count a worker that died."""
        if trial_id in self._running:
            self._running[trial_id].deaths += 1

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """End a pack that finished, or whose workers died.

        Tune itself begins a pack again, unless its worker died between two packs: that one is suggested again.
        """
        if trial_id not in self._running:
            return  # stopped by on_epoch
        if not error and result and (REPORTS in result or TROUBLE in result) and self.on_epoch(trial_id, result):
            return
        pack = self._running.pop(trial_id)
        if 0 < pack.deaths <= WORKER_DEATHS:
            self._lost.append(pack)
            return
        for number in pack.numbers:
            if self._search.is_baseline(number):
                self.stopped_by = RunError(
                    f"the worker of trial {number}, the configuration started from, died {pack.deaths} times: "
                    "there is nothing to compare with",
                    hint="free memory or use fewer --workers, then resume the sweep",
                )
                continue
            self._search.fail(number, f"its worker died {pack.deaths} times")
            self._tell(number, "failed")

    def save(self, checkpoint_path: str) -> None:
        """The journal holds everything."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal holds everything."""

    def _note(self, number: int, report: Mapping[str, Any]) -> str | None:
        """Tell the study of a report, and how the trial ended if it did."""
        if "error" in report:
            self._search.fail(number, report["error"], attributes={"seconds": report["seconds"]})
            return "failed"
        score, attributes = _read(report)
        stop = self._search.report(number, report["epoch"], score)
        if report["finished"] or stop:
            self._search.tell(number, score, pruned=not report["finished"], attributes=attributes)
            return "complete" if report["finished"] else "pruned"
        return None

    def _ask(self) -> _Pack | None:
        """The next trials as a pack; None if all have begun, or no more may."""
        left = self._search.num_left
        late = self._budget is not None and self._budget.is_spent
        if late and left and self._search.baseline_begun:
            self.out_of_time = True
            return None
        size = 1 if late else self._sizes.next(left, self._workers)
        asked: list[dict[str, Any]] = []
        while len(asked) < size and (suggestion := self._search.ask(together=size > 1)) is not None:
            asked.append(vars(suggestion))
            self._tell(suggestion.number, "running")
        return _Pack({TRIALS: json.dumps(asked)}, [one["number"] for one in asked]) if asked else None

    def _tell(self, number: int, state: str) -> None:
        self._notify(TrialEvent(number=number, state=state, at=time.time()))


class StopWhenTold(FIFOScheduler):  # type: ignore[misc]
    """Stops packs all of whose trials have ended, and counts their workers' deaths."""

    def __init__(self, suggest: Suggest) -> None:
        super().__init__()
        self._suggest = suggest

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Called after each epoch but a pack's last."""
        stop = self._suggest.on_epoch(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """Called whenever a worker died."""
        self._suggest.on_death(trial.trial_id)


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
