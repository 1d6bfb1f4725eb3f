"""Trials x assets as stacks: what `cohort` trains one after the other, several trials at a time as one computation.

Models of one shape (hidden size, lookback, batch size, features) share a stack, whichever trial they are of; each draws
from its own seed and ticker, so a trial's numbers are those it has alone, up to the order of float sums.
"""

import functools
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from b3dist.errors import TrainingError
from b3dist.training.fused import Execution, fit_stack
from b3dist.training.fused_data import StackMember, by_shape
from b3dist.training.fused_epoch import MemberEpoch
from b3dist.training.fused_stepwise import EpochStacks
from b3dist.training.packs import fit_halving, models_that_fit, split_evenly
from b3dist.training.trainer import Fit
from b3dist.tuning.cohort import Cohort, CohortReport, judge_fit
from b3dist.tuning.scores import AssetScore, CohortScore

Model = tuple[int, int]
"""A trial's number and an asset's place in its cohort."""


class StackedTrials:
    """Trials in training at the same time, each asset under each of them a model of a stack; see `cohort.Trials`.

    Args:
        trials: by number.
        device: of the training.
        gpu_share: of a GPU's memory that may be used.
    """

    def __init__(self, trials: Mapping[int, Cohort], *, device: str = "cpu", gpu_share: float = 1.0) -> None:
        self._trials = {number: _StackedTrial(cohort) for number, cohort in trials.items()}
        members = {
            (number, place): StackMember(data=data, config=cohort.config)
            for number, cohort in trials.items()
            for place, data in enumerate(cohort.assets)
        }
        execution = Execution.on(device)
        self._stacks = [
            EpochStacks(group, device=device, most=_most(group, device, gpu_share), execution=execution)
            for group in by_shape(members)
        ]

    def advance(self) -> dict[int, CohortReport | Exception]:
        """See `cohort.Trials`."""
        told: dict[Model, MemberEpoch | Exception] = {}
        for stacks in self._stacks:
            told |= stacks.advance()
        own: dict[int, dict[int, MemberEpoch | Exception]] = {number: {} for number in self._trials}
        for (number, place), one in told.items():
            own[number][place] = one
        reports = {number: trial.take(own[number]) for number, trial in self._trials.items()}
        self.drop([number for number, one in reports.items() if isinstance(one, Exception) or one.finished])
        return reports

    def drop(self, numbers: Collection[int]) -> None:
        """See `cohort.Trials`."""
        models = {(number, place) for number in numbers for place in range(len(self._trials[number].cohort.assets))}
        for stacks in self._stacks:
            stacks.leave(models)
        for number in numbers:
            del self._trials[number]


class _StackedTrial:
    """What one trial has come to: its assets as the weights kept so far judge them."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self._epoch = 0
        self._epochs = [0] * len(cohort.assets)
        self._losses = [math.inf] * len(cohort.assets)
        self._scores: list[AssetScore | None] = [None] * len(cohort.assets)
        self._naive = [float(np.square(data.val.future_return).sum()) for data in cohort.assets]
        self._running = set(range(len(cohort.assets)))

    def take(self, epochs: Mapping[int, MemberEpoch | Exception]) -> CohortReport | Exception:
        """Note an epoch of the assets still in training; the first asset's error, if any, is the trial's."""
        self._epoch += 1
        for place, one in sorted(epochs.items()):
            if isinstance(one, Exception):
                return one
            self._epochs[place] += 1
            if one.record.val_loss < self._losses[place]:
                self._losses[place] = one.record.val_loss
                self._scores[place] = AssetScore(
                    confusion=np.array(one.confusion, dtype=np.int64),
                    squared_error=one.squared_error,
                    naive_squared_error=self._naive[place],
                )
            if one.is_last:  # it waits for the others
                self._running.discard(place)
        assets = self.cohort.assets
        scores = {data.ticker: score for data, score in zip(assets, self._scores, strict=True) if score is not None}
        return CohortReport(
            epoch=self._epoch,
            score=CohortScore.pooled(list(scores.values())),
            assets=scores,
            windows_trained=sum(len(data.train) * epochs for data, epochs in zip(assets, self._epochs, strict=True)),
            finished=not self._running,
        )


def evaluate_stacked(
    members: Sequence[StackMember], *, device: str = "cpu", gpu_share: float = 1.0
) -> list[dict[str, AssetScore] | TrainingError]:
    """Train models of any shapes to their end, in as few stacks as possible, and judge each on `val` and `test`.

    Returns:
        In the order of `members`; a model that diverged is an error in its place.

    Raises:
        torch.OutOfMemoryError: a model alone does not fit on the device.
    """
    fit = functools.partial(fit_stack, device=device, execution=Execution.on(device))
    fits: dict[int, Fit | TrainingError] = {}
    for group in by_shape(dict(enumerate(members))):
        for pack in split_evenly(list(group), _most(group, device, gpu_share)):
            outcomes, _ = fit_halving([group[place] for place in pack], fit)
            fits |= zip(pack, outcomes, strict=True)
    return [
        fit if isinstance(fit, TrainingError) else judge_fit(member.data, fit, member.config)
        for member, fit in ((member, fits[place]) for place, member in enumerate(members))
    ]


def _most[Key](members: Mapping[Key, StackMember], device: str, gpu_share: float) -> int:
    """Models of this shape per stack."""
    if device != "cpu":
        torch.cuda.empty_cache()  # what an earlier pack of this process held counts as free
    first = next(iter(members.values()))
    return models_that_fit(
        first.config,
        device=device,
        num_features=first.data.features.shape[1],
        num_rows=max(len(member.data.features) for member in members.values()),
        share=min(gpu_share, 1.0),
    )
