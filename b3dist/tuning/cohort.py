"""One hyperparameter set on a cohort of assets: what a trial is, and what a finalist is judged by."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from b3dist.config import Config
from b3dist.data.windows import AssetData
from b3dist.training.trainer import Fitting, fit_asset, predict
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
    fit = fit_asset(data, config, device=device)
    rows, lookback = torch.from_numpy(data.features), config.data.lookback
    return {
        name: AssetScore.of(
            predict(fit.model, rows, torch.from_numpy(data.part(name).ends - lookback + 1), lookback),
            data.part(name),
            fit.return_target,
        )
        for name in ("val", "test")
    }
