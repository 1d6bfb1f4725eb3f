"""The models of a release, by ticker, ready to run on windows of any mixture of them."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from b3dist.config import DataConfig
from b3dist.data.schema import ACTIONS
from b3dist.errors import DataError, UnknownTickerError
from b3dist.release import Release, ReleasedModel
from b3dist.scoring.forward import StackedModels

Which = Literal["served", "evaluated"]


@dataclass(frozen=True)
class Predictions:
    """What N windows' models say, with the arithmetic of predictions.parquet."""

    probabilities: npt.NDArray[np.float64]
    """(N, 3) buy, sell, hold."""
    returns: npt.NDArray[np.float64]
    """(N,) fractions."""


class ReleasedModels:
    """Weights and facts of a release's models; safe to use from several threads.

    Args:
        release: an opened release.
        which: the models meant for serving, or those that metrics and predictions are of.
        tickers: None: all.

    Raises:
        UnknownTickerError: the release has no such ticker.
    """

    def __init__(self, release: Release, which: Which = "served", tickers: Collection[str] | None = None) -> None:
        self.release_id = release.release_id
        for ticker in tickers or ():
            if ticker not in release.assets:
                raise self.unknown(ticker, release.assets)
        wanted = sorted(release.assets if tickers is None else set(tickers))
        self.of: dict[str, ReleasedModel] = {ticker: getattr(release.assets[ticker], which) for ticker in wanted}
        self.source = {ticker: release.assets[ticker].source for ticker in wanted}
        never = np.datetime64("NaT", "D")  # no session is at or before it
        self._trained_until = {
            ticker: never
            if self.source[ticker] == "naive" or model.trained_until is None
            else np.datetime64(model.trained_until, "D")
            for ticker, model in self.of.items()
        }
        self._groups = release.groups
        self._stacks, self._mean, self._scale = {}, {}, {}
        for index in sorted({model.group for model in self.of.values()}):
            stack = StackedModels(release.groups[index].weights)
            mean, scale = np.zeros(len(stack)), np.zeros(len(stack))
            for model in self.of.values():
                if model.group == index:
                    mean[model.slot], scale[model.slot] = model.return_target.mean, model.return_target.scale
            self._stacks[index], self._mean[index], self._scale[index] = stack, mean, scale

    def data(self, ticker: str) -> DataConfig:
        """What a window of a model is made of."""
        return self._groups[self.of[ticker].group].data

    @torch.inference_mode()
    def predict(self, tickers: Sequence[str], windows: Sequence[npt.NDArray[np.float32]]) -> Predictions:
        """Predictions of N windows, each (lookback, F) z-scores, in their order; one batched pass per group."""
        models = [self.of[ticker] for ticker in tickers]
        groups = np.array([model.group for model in models])
        slots = np.array([model.slot for model in models])
        outputs = torch.empty(len(models), len(ACTIONS) + 1)
        mean, scale = np.empty(len(models)), np.empty(len(models))
        for index in np.unique(groups).tolist():
            members = np.flatnonzero(groups == index)
            of_group = np.stack([windows[n] for n in members.tolist()])
            outputs[torch.from_numpy(members)] = self._stacks[index].outputs(slots[members], torch.from_numpy(of_group))
            mean[members], scale[members] = self._mean[index][slots[members]], self._scale[index][slots[members]]
        return _decode(outputs, mean, scale)

    @torch.inference_mode()
    def predict_many(self, ticker: str, windows: Tensor, starts: Tensor) -> Predictions:
        """Predictions of windows[starts] of one asset; windows: (any, lookback, F) z-scores, overlapping views."""
        model = self.of[ticker]
        outputs = self._stacks[model.group].of_one(model.slot, windows, starts)
        return _decode(outputs, model.return_target.mean, model.return_target.scale)

    def in_sample(self, tickers: Sequence[str], sessions: npt.NDArray[np.datetime64]) -> npt.NDArray[np.bool_]:
        """Whether each of N windows, by its last session (N,), lies in what its model was trained on: (N,).

        That ends at `ReleasedModel.trained_until`: the last training session of the asset, or of the model it began
        from if that is later; for a pooled model the eve of its cut; for a refitted one the last row there was.
        """
        seen: npt.NDArray[np.bool_] = sessions <= np.array([self._trained_until[ticker] for ticker in tickers])
        return seen

    def require_basis(self, ticker: str, calendar: npt.NDArray[np.datetime64]) -> None:
        """Refuse a lake that ends before a model's anchor: it may lack a share event between the two.

        Prices are taken at the anchor's basis, price x adjustment(t) / adjustment(anchor), and such a lake does not
        know the second. A naive model's inputs do not matter.

        Args:
            ticker: of the release.
            calendar: the lake's sessions, ascending; without any there are no bars to score.

        Raises:
            DataError: names the lake's last session and the anchor.
        """
        anchor = self.of[ticker].anchor
        if self.source[ticker] == "naive" or not len(calendar) or calendar[-1] >= np.datetime64(anchor, "D"):
            return
        raise DataError(
            f"the lake ends on {calendar[-1]}, before {ticker}'s anchor {anchor}: its price basis is unknown",
            hint=f"ingest B3's files up to {anchor} at least, or use a release of a lake that ends earlier",
        )

    def unknown(self, ticker: str, known: Collection[str] | None = None) -> UnknownTickerError:
        """The error for a ticker without a model, with the nearest ones."""
        nearest = difflib.get_close_matches(ticker.upper(), self.of if known is None else known, n=3)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "`b3dist release show` lists what there is"
        return UnknownTickerError(f"release {self.release_id} has no model of {ticker}", hint=hint)


def _decode(
    outputs: Tensor, mean: float | npt.NDArray[np.float64], scale: float | npt.NDArray[np.float64]
) -> Predictions:
    """Probabilities and fractions from logits and returns (N, 3 + 1); mean and scale of the return targets."""
    doubled = outputs.to(torch.float64)
    probabilities = torch.softmax(doubled[:, :-1], dim=1).numpy()
    return Predictions(probabilities=probabilities, returns=doubled[:, -1].numpy() * scale + mean)
