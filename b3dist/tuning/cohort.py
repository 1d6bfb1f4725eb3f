"""One hyperparameter set on a cohort of assets: what a trial is, and what a finalist is judged by."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from b3dist.config import Config
from b3dist.data.windows import AssetData
from b3dist.training.trainer import Fit, Fitting, fit_asset, predict
from b3dist.tuning.scores import AssetScore, CohortScore


@dataclass(frozen=True, kw_only=True)
class CohortReport:
    """A trial after an epoch: every asset as the weights kept so far would be judged if training ended here."""

    epoch: int
    score: CohortScore
    assets: dict[str, AssetScore]
    """Validation part, by ticker."""
    windows_trained: int
    """Training windows x epochs so far, over all assets."""
    finished: bool


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """What one trial trains."""

    assets: Sequence[AssetData]
    """As the configuration's data section prepares them."""
    config: Config


class Trials(Protocol):
    """Some trials in training at the same time, whatever the engine."""

    def advance(self) -> "Mapping[int, CohortReport | Exception]":
        """One more epoch of each: its report, or what ended it; then those that finished or failed are forgotten."""

    def drop(self, numbers: Collection[int]) -> None:
        """Forget trials that are to be trained no further."""


class SingleTrials:
    """Trials whose models are trained one after the other: all of a trial's assets, then the next trial's.

    Args:
        trials: by number.
        device: of the training.
    """

    def __init__(self, trials: Mapping[int, Cohort], *, device: str = "cpu") -> None:
        self._waiting, self._device = dict(trials), device
        self._running: dict[int, CohortTraining] = {}

    def advance(self) -> dict[int, CohortReport | Exception]:
        """See `Trials`."""
        reports: dict[int, CohortReport | Exception] = {}
        for number in [*self._running, *self._waiting]:
            try:
                if cohort := self._waiting.pop(number, None):
                    self._running[number] = CohortTraining(cohort.assets, cohort.config, device=self._device)
                reports[number] = self._running[number].advance()
            except Exception as error:  # noqa: BLE001  the trial's own: the others go on
                reports[number] = error
        self.drop([number for number, one in reports.items() if isinstance(one, Exception) or one.finished])
        return reports

    def drop(self, numbers: Collection[int]) -> None:
        """See `Trials`."""
        for number in numbers:
            self._waiting.pop(number, None)
            self._running.pop(number, None)


class CohortTraining:
    """The assets of a cohort, trained side by side under one configuration: all advance an epoch, then report.

    Each asset's numbers are those of `fit_asset`: an asset whose patience has run out waits for the others.

    Args:
        assets: prepared under this configuration's data section.
        config: complete.
        device: of the training.

    Raises:
        TrainingError: from `advance`: an asset diverged.
    """

    def __init__(self, assets: Sequence[AssetData], config: Config, *, device: str = "cpu") -> None:
        torch.set_num_threads(1)
        self._assets = list(assets)
        self._fittings = [Fitting(data, config, torch.device(device)) for data in assets]
        self._scores: dict[str, tuple[int, AssetScore]] = {}
        self._epoch = 0

    @property
    def finished(self) -> bool:
        """Whether no asset has an epoch left."""
        return all(fitting.finished for fitting in self._fittings)

    def advance(self) -> CohortReport:
        """One more epoch of every asset that is not finished."""
        self._epoch += 1
        for data, fitting in zip(self._assets, self._fittings, strict=True):
            if not fitting.finished:
                fitting.advance()
                self._judge(data, fitting)
        scores = {ticker: score for ticker, (_, score) in self._scores.items()}
        return CohortReport(
            epoch=self._epoch,
            score=CohortScore.pooled(list(scores.values())),
            assets=scores,
            windows_trained=sum(
                len(data.train) * len(fitting.history)
                for data, fitting in zip(self._assets, self._fittings, strict=True)
            ),
            finished=self.finished,
        )

    def _judge(self, data: AssetData, fitting: Fitting) -> None:
        known = self._scores.get(data.ticker)
        if known is None or known[0] != fitting.best_epoch:
            assert fitting.best_predictions is not None
            score = AssetScore.of(fitting.best_predictions, data.val, fitting.return_target)
            self._scores[data.ticker] = fitting.best_epoch, score


def evaluate_asset(data: AssetData, config: Config, *, device: str = "cpu") -> dict[str, AssetScore]:
    """Train one asset to its end and judge the kept weights on `val` and `test`.

    Raises:
        TrainingError: the loss diverged.
    """
    return judge_fit(data, fit_asset(data, config, device=device), config)


def judge_fit(data: AssetData, fit: Fit, config: Config) -> dict[str, AssetScore]:
    """A fitted asset's scores on `val` and `test`."""
    rows, lookback = torch.from_numpy(data.features), config.data.lookback
    return {
        name: AssetScore.of(
            predict(fit.model, rows, torch.from_numpy(data.part(name).ends - lookback + 1), lookback),
            data.part(name),
            fit.return_target,
        )
        for name in ("val", "test")
    }
