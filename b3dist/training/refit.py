"""Train an asset again on every row there is, by the schedule that its evaluation found: no part is held back.

Nothing can judge the result, as every session has been seen. What speaks for it is the evaluation of the same
configuration, seed, number of epochs and learning rates on a model that had not seen its test part.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from b3dist.config import Config, DataConfig
from b3dist.data.features import compute_features
from b3dist.data.windows import AssetData, Scaler, assemble, bars_at, fit_scaler, read_history, refuse_standing_price
from b3dist.errors import InsufficientDataError, TrainingError
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.trainer import Fitting, predict


@dataclass(frozen=True, kw_only=True)
class Refit:
    """An asset trained on all its rows."""

    model: LstmMtl
    return_target: ReturnTarget
    scaler: Scaler
    anchor: date
    """The last row's session."""
    num_train_windows: int
    train_loss: float
    """Over every window, dropout off, not resampled."""


def prepare_whole(
    ticker: str, bars: Mapping[str, npt.ArrayLike], calendar: npt.NDArray[np.datetime64], config: DataConfig
) -> AssetData:
    """An asset's data with every usable window in the training part: no validation, no test part.

    The anchor is the last row, and the scaler is of all rows. Arguments as for `b3dist.data.windows.prepare_asset`.

    Raises:
        InsufficientDataError: too few sessions, no usable window, or a price that never moves.
        DataError: an open or close of 0.
    """
    history = read_history(ticker, bars, calendar, config)
    if len(history.ends) == 0:
        raise InsufficientDataError(f"{ticker} has no usable window to train on", hint="use more history")
    anchor_row = len(history.sessions) - 1
    at_anchor = bars_at(history, anchor_row)
    refuse_standing_price(ticker, at_anchor.close)
    features = compute_features(at_anchor, config.feature_set)
    nothing = history.ends[:0]
    return assemble(
        history,
        (history.ends, nothing, nothing),
        anchor_row=anchor_row,
        features=features,
        scaler=fit_scaler(features[history.first_row :]),
        config=config,
        purged=0,
    )


def refit_asset(
    data: AssetData,
    config: Config,
    learning_rates: Sequence[float],
    *,
    start: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
) -> Refit:
    """Train for one epoch per learning rate, from scratch or from given weights; the last epoch's are kept.

    Args:
        data: as `prepare_whole` makes it.
        config: of the evaluated model; early stopping, the plateau schedule and the number of epochs are not used.
        learning_rates: of the evaluated model's history, up to and including its best epoch.
        start: weights to begin with instead of drawn ones, at this data's scales.
        device: where to train.

    Raises:
        TrainingError: the loss stopped being a finite number.
    """
    torch.set_num_threads(1)
    fitting = Fitting(data, config, torch.device(device))
    if start is not None:
        fitting.model.load_state_dict(start)
    for epoch, learning_rate in enumerate(learning_rates, start=1):
        fitting.optimizer.learning_rate = learning_rate
        loss = fitting.run_epoch()
        if not math.isfinite(loss):
            raise TrainingError(
                f"{data.ticker} diverged at epoch {epoch} of its refit: training loss {loss}",
                hint="lower training.learning_rate or the loss weights, or release without --refit",
            )
    seen = predict(fitting.model, fitting.rows, fitting.train.starts, fitting.lookback)
    return Refit(
        model=fitting.model.cpu(),
        return_target=fitting.return_target,
        scaler=data.scaler,
        anchor=data.anchor,
        num_train_windows=len(data.train),
        train_loss=fitting.evaluate(seen, fitting.train),
    )
