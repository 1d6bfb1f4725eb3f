"""The search itself: Optuna asked and told, in a journal that survives kills and that dashboards can read.

The sampler is made anew for every suggestion from the sweep's seed and the suggestion's number. So a resumed sweep goes
on as an unbroken one would, and suggestions that do not look at results (the first ten) are the same for any number
of workers; later ones depend on which trials had ended when they were asked for.
"""

import contextlib
import hashlib
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from b3dist.config import Config
from b3dist.tuning.journal import (
    ABANDONED,
    BASELINE,
    ERROR,
    SOURCE,
    STUDY,
    TrialRecord,
    damage_said,
    open_journal,
    record_of,
)
from b3dist.tuning.scores import CohortScore
from b3dist.tuning.space import Params, SearchSpace
from b3dist.tuning.surface import propose_peak

OBJECTIVES: Final = ("macro F1", "return RMSE ÷ persistence")
"""What dashboards and plots call a trial's values."""
SMALL_BUDGET: Final = 20
"""Up to so many trials TPE looks at each dimension on its own; with more at all of them together."""
REDUCTION: Final = 3
"""One in so many trials is trained on at each rung of successive halving, the first at this share of the epochs.

With a rung at a ninth as well one trial in nine is left: too few for the surface where scores are noisy (docs/LOG.md).
"""
EARLIEST_RUNG: Final = 4
"""With the rung at an earlier epoch, a sweep stops no trial unless told to: it says too little of the end.

Rank correlation with it on real assets: 0.9 with the rung at epoch 4 to 7, 0.75 at 3, 0.6 at 2, 0 at 1 (docs/LOG.md).
"""
FEWEST_TO_HALVE: Final = 15
"""With fewer trials neither: a third of them leaves too little to choose from."""
SURFACE_SHARE: Final = 20
"""One in so many trials, the last ones, is where a quadratic surface through the better trials peaks."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What decides the suggestions, besides the results."""

    space: SearchSpace
    start: Params
    """Trial 0."""
    budget: int
    """Trials to settle; those a killed driver abandoned do not count."""
    epochs: int
    """Epochs of a trial, as far as can be told before."""
    seed: int
    two_objectives: bool = False
    """Macro F1 and the return error relative to persistence, instead of macro F1 alone."""
    halving: bool = True
    """Stop a trial that is not among the best third at a third of the epochs; never with two objectives."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A trial to run."""

    number: int
    """Optuna's."""
    params: Params


class Search:
    """A study open for asking and telling, by one process; its methods may be called from several threads.

    Args:
        settings: what is searched and how.
        journal: Optuna's journal file, made if absent; None keeps the study in memory.

    Raises:
        RunError: the journal is damaged.
        StorageError: it cannot be written.
    """

    def __init__(self, settings: SearchSettings, journal: Path | None = None) -> None:
        self.settings = settings
        self._distributions: dict[str, BaseDistribution] = {
            one.name: (IntDistribution(int(one.low), int(one.high), log=one.log) if one.whole else _floating(one))
            for one in settings.space.dimensions
        }
        self._running: dict[int, Trial] = {}
        self._lock = threading.RLock()
        with damage_said(journal) if journal is not None else contextlib.nullcontext():
            self._study = self._open(journal)
            self._abandon_running()
            if not self._study.get_trials(deepcopy=False):
                self._study.enqueue_trial(dict(settings.start), user_attrs={BASELINE: True, SOURCE: "start"})

    def ask(self, *, together: bool = False) -> Suggestion | None:
        """The next trial; None once as many have begun as there may be.

        Args:
            together: one of several that begin at once: those that run count as bad ones, so that they differ.
        """
        with self._lock:
            trials = self._study.get_trials(deepcopy=False)
            index = num_begun(trials)
            if index >= self.settings.budget:
                return None
            waiting = any(trial.state is TrialState.WAITING for trial in trials)
            if not waiting and (peak := self._surface_peak(index, trials)) is not None:
                self._study.enqueue_trial(dict(peak), user_attrs={SOURCE: "surface"})
            self._study.sampler = self._sampler(index, together=together)
            trial = self._study.ask(self._distributions)
            if SOURCE not in trial.user_attrs:
                trial.set_user_attr(SOURCE, "tpe")
            self._running[trial.number] = trial
            return Suggestion(number=trial.number, params=dict(trial.params))

    def report(self, number: int, epoch: int, score: CohortScore) -> bool:
        """Note a trial's macro F1 after an epoch; whether it is to be stopped. The baseline never is."""
        with self._lock:
            if self.settings.two_objectives:
                return False
            trial = self._running[number]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a trial begun again on another worker repeats its epochs
                trial.report(score.macro_f1, epoch)
            return self.settings.halving and trial.should_prune() and not trial.user_attrs.get(BASELINE)

    def tell(self, number: int, score: CohortScore, *, pruned: bool, attributes: Mapping[str, Any]) -> None:
        """End a trial; one whose numbers are not finite has failed."""
        values = [score.macro_f1, score.error_ratio][: 2 if self.settings.two_objectives else 1]
        if not all(math.isfinite(value) for value in values):
            self.fail(number, f"its score is {values}", attributes=attributes)
            return
        with self._lock:
            trial = self._running.pop(number)
            _annotate(trial, attributes)
            if pruned:
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._study.tell(trial, values)

    def fail(self, number: int, reason: str, *, attributes: Mapping[str, Any] | None = None) -> None:
        """End a trial that has no score: its loss diverged, or its worker died."""
        with self._lock:
            trial = self._running.pop(number)
            _annotate(trial, {**(attributes or {}), ERROR: reason})
            self._study.tell(trial, state=TrialState.FAIL)

    def is_baseline(self, number: int) -> bool:
        """Whether a trial that runs has the starting values."""
        return bool(self._running[number].user_attrs.get(BASELINE))

    @property
    def baseline_failed(self) -> bool:
        """Whether the trial with the starting values ended without a score, and not because its driver did."""
        return any(
            record.is_baseline and record.state == "failed" and not record.was_abandoned for record in self.records()
        )

    @property
    def baseline_begun(self) -> bool:
        """Whether the trial with the starting values runs or has ended; one that was abandoned has not."""
        return any(
            record.is_baseline and record.state != "waiting" and not record.was_abandoned for record in self.records()
        )

    @property
    def num_left(self) -> int:
        """Trials that may still begin."""
        return self.settings.budget - num_begun(self._study.get_trials(deepcopy=False))

    def records(self) -> list[TrialRecord]:
        """Every trial so far, in order of number."""
        with self._lock:
            return [record_of(trial) for trial in self._study.get_trials(deepcopy=False)]

    def _open(self, journal: Path | None) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        two = self.settings.two_objectives
        pruner: optuna.pruners.BasePruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=first_rung(self.settings.epochs), reduction_factor=REDUCTION
        )
        study = optuna.create_study(
            study_name=STUDY,
            storage=open_journal(journal, writing=True) if journal is not None else None,
            load_if_exists=True,
            directions=["maximize", "minimize"] if two else ["maximize"],
            pruner=optuna.pruners.NopPruner() if two else pruner,
        )
        if study.metric_names is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(OBJECTIVES[: len(study.directions)]))
        return study

    def _abandon_running(self) -> None:
        """Mark as failed what a killed driver left running, and queue the same values again."""
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            storage, internal = self._study._storage, trial._trial_id
            storage.set_trial_user_attr(internal, ABANDONED, True)
            storage.set_trial_user_attr(internal, ERROR, "its driver ended while it ran")
            storage.set_trial_state_values(internal, TrialState.FAIL)
            whole = trial.params if len(trial.params) == len(self._distributions) else None
            if params := whole or trial.system_attrs.get("fixed_params"):
                known = {name: trial.user_attrs[name] for name in (BASELINE, SOURCE) if name in trial.user_attrs}
                self._study.enqueue_trial(params, user_attrs={**known, "again_of": trial.number})
            # else it was killed while it was being suggested: the next suggestion is the same one

    def _sampler(self, index: int, *, together: bool) -> optuna.samplers.BaseSampler:
        seed = derived_seed(self.settings.seed, index)
        if self.settings.budget <= SMALL_BUDGET:
            return optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=together)

    def _surface_peak(self, index: int, trials: Sequence[FrozenTrial]) -> Params | None:
        last = max(1, self.settings.budget // SURFACE_SHARE)
        if self.settings.two_objectives or index < self.settings.budget - last:
            return None
        space = self.settings.space
        ended = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        if not ended:
            return None
        peak = propose_peak(
            np.array([space.to_unit(trial.params) for trial in ended]), np.array([trial.value for trial in ended])
        )
        if peak is None:
            return None
        params = space.from_unit(peak)
        tried = np.array([space.to_unit(trial.params) for trial in trials if trial.params])
        new = bool((np.abs(tried - space.to_unit(params)).max(axis=1) > 1e-3).all())
        return params if new else None


def sure_epochs(config: Config) -> int:
    """Epochs a training has at least, early stopping or not."""
    # With the card's min_delta patience always runs out: it trains 21 epochs of 50.
    return min(config.training.epochs, config.training.patience + 1)


def first_rung(epochs: int) -> int:
    """The epoch after which successive halving stops a trial for the first time."""
    return max(1, epochs // REDUCTION)


def worth_halving(epochs: int, trials: int) -> bool:
    """Whether so many trials of so many epochs are stopped early unless a user says otherwise (docs/decisions/0050)."""
    return first_rung(epochs) >= EARLIEST_RUNG and trials >= FEWEST_TO_HALVE


def num_begun(trials: Sequence[FrozenTrial]) -> int:
    """Trials that have begun and were not abandoned by a killed driver."""
    return sum(trial.state is not TrialState.WAITING and not trial.user_attrs.get(ABANDONED) for trial in trials)


def derived_seed(*parts: int | str) -> int:
    """A 32-bit seed that any change of a part changes altogether."""
    text = ":".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _floating(dimension: Any) -> FloatDistribution:
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _annotate(trial: Trial, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
