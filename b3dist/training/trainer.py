"""Fit one asset: plain PyTorch, one thread, no Ray.

The weights and gradients of the model's eight tensors live in one flat buffer each, so that clipping, Adam and zeroing
are one kernel each instead of eight.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from b3dist.config import Config
from b3dist.data.windows import AssetData, Split
from b3dist.errors import TrainingError
from b3dist.model.lstm_mtl import LstmMtl, discourage_absent_actions, draw_dropout_masks
from b3dist.training.metrics import macro_f1
from b3dist.training.objective import Objective
from b3dist.training.optimizer import EarlyStopping, FlatAdam, PlateauSchedule
from b3dist.training.precision import fix_order_of_sums, matmul_precision, require_supported
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.sampling import asset_generator, draw_epoch

EVALUATION_BATCH = 512
"""Windows per forward pass at evaluation: bounds the memory of a long history."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of history.csv."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean loss of the epoch's steps, as optimised: resampled windows, dropout on."""
    val_loss: float
    """Loss over every validation window, dropout off."""
    val_macro_f1: float
    val_mae: float
    """Mean absolute return error on validation, a fraction."""
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained asset: the best epoch's weights and how it got there."""

    model: LstmMtl
    """Weights of the epoch with the lowest validation loss."""
    return_target: ReturnTarget
    history: list[EpochRecord]
    best_epoch: int
    train_loss: float | None
    """Loss of the best epoch over every training window, dropout off, not resampled; None: there are none."""
    val_loss: float | None


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Model outputs for a part's windows."""

    logits: Tensor
    """(n, 3)."""
    returns: Tensor
    """(n,) in the trained unit."""


@dataclass(frozen=True)
class WindowTensors:
    """A part's windows as tensors: rows are gathered by index, never copied lookback times."""

    starts: Tensor
    """(n,) first row of each window."""
    action: Tensor
    target: Tensor
    """(n,) return in the trained unit."""
    future_return: Tensor
    """(n,) float64, fraction."""

    @classmethod
    def of(cls, split: Split, lookback: int, return_target: ReturnTarget, device: torch.device) -> "WindowTensors":
        """Tensors of one part."""
        return cls(
            torch.from_numpy(split.ends - lookback + 1).to(device),
            torch.from_numpy(split.action).to(device),
            torch.from_numpy(return_target.encode(split.future_return).astype(np.float32)).to(device),
            torch.from_numpy(split.future_return).to(device),
        )


def fit_asset(
    data: AssetData,
    config: Config,
    *,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
    start: Mapping[str, Tensor] | None = None,
) -> Fit:
    """Train one asset by the card's procedure, from scratch or from given weights; the model comes back on the CPU.

    Everything random is drawn on the CPU, so a GPU sees the same windows and masks.

    Early stopping counts epochs without an improvement of min_delta; the kept epoch has the lowest validation loss.

    Raises:
        TrainingError: the loss stopped being a finite number.
    """
    torch.set_num_threads(1)
    fitting = Fitting(data, config, torch.device(device), start=start)
    while not fitting.finished:
        record = fitting.advance()
        if on_epoch is not None:
            on_epoch(record)
    return fitting.finish()


def predict(model: LstmMtl, rows: Tensor, starts: Tensor, lookback: int) -> Predictions:
    """Outputs of windows beginning at rows starts: (n,), dropout off, of rows: (rows, F) z-scores; in float32."""
    offsets = torch.arange(lookback, device=rows.device)
    logits, returns = [], []
    with torch.inference_mode(), matmul_precision("fp32"):
        for chunk in torch.split(starts, EVALUATION_BATCH):
            chunk_logits, chunk_returns = model(rows[chunk[:, None] + offsets])
            logits.append(chunk_logits)
            returns.append(chunk_returns)
    return Predictions(logits=torch.cat(logits), returns=torch.cat(returns))


class Fitting:
    """One asset's training, an epoch at a time: `fit_asset` runs it to its end, a sweep's trial many side by side.

    Args:
        data: the asset.
        config: what decides the numbers.
        device: cpu or cuda.
        start: weights to begin with instead of drawn ones; they are epoch 0, and kept if no epoch is better.

    Raises:
        TrainingError: from `advance`: the loss stopped being a finite number.
    """

    def __init__(
        self, data: AssetData, config: Config, device: torch.device, *, start: Mapping[str, Tensor] | None = None
    ) -> None:
        self.device = device
        self.ticker = data.ticker
        self.config = config
        self.generator = asset_generator(config.seed, data.ticker)
        self.lookback = config.data.lookback
        self.offsets = torch.arange(self.lookback, device=device)
        self.rows = torch.from_numpy(data.features).to(device)
        self.return_target = ReturnTarget.fit(data.train.future_return, config.loss.return_unit)
        self.train = WindowTensors.of(data.train, self.lookback, self.return_target, device)
        self.val = WindowTensors.of(data.val, self.lookback, self.return_target, device)
        objective = Objective.of(data.train.action, config, device)
        self.loss, self.sampling, self.importance = objective.loss, objective.sampling, objective.importance
        self.model = LstmMtl(self.rows.shape[1], config.model, generator=self.generator)
        discourage_absent_actions(self.model, objective.counts)
        if start is not None:
            self.model.load_state_dict(start)
        require_supported(config.training.precision, device)
        fix_order_of_sums(device)
        self.model.to(device)
        self.weights, self.gradient = flatten_parameters(self.model)
        self.optimizer = FlatAdam(self.weights, self.gradient, config.training)
        self.history: list[EpochRecord] = []
        self.best_loss, self.best_epoch = math.inf, 0
        self.best_predictions: Predictions | None = None
        """Of the validation part, by the weights kept so far; None before the first epoch."""
        self._best_weights = self.weights.clone()
        self._stopping, self._schedule = EarlyStopping(config.training), PlateauSchedule(config.training)
        self._stopped = False
        if start is not None:
            self.best_predictions = predict(self.model, self.rows, self.val.starts, self.lookback)
            self.best_loss = self.evaluate(self.best_predictions, self.val)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or patience has run out."""
        return self._stopped or len(self.history) >= self.config.training.epochs

    def advance(self) -> EpochRecord:
        """Train one more epoch and judge it on the validation part; its weights are kept if none was better."""
        epoch = len(self.history) + 1
        learning_rate = self.optimizer.learning_rate
        train_loss = self.run_epoch()
        predictions = predict(self.model, self.rows, self.val.starts, self.lookback)
        val_loss = self.evaluate(predictions, self.val)
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise TrainingError(
                f"{self.ticker} diverged at epoch {epoch}: training loss {train_loss}, validation loss {val_loss}",
                hint="lower training.learning_rate or the loss weights",
            )
        returns = self.return_target.decode(predictions.returns.to(torch.float64))
        record = EpochRecord(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            val_macro_f1=macro_f1(self.val.action.cpu().numpy(), predictions.logits.argmax(dim=1).cpu().numpy()),
            val_mae=float((returns - self.val.future_return).abs().mean()),
            learning_rate=learning_rate,
        )
        self.history.append(record)
        if val_loss < self.best_loss:
            self.best_loss, self.best_epoch, self.best_predictions = val_loss, epoch, predictions
            self._best_weights.copy_(self.weights)
        self.optimizer.learning_rate = self._schedule.update(val_loss)
        self._stopped = self._stopping.should_stop(val_loss)
        return record

    def finish(self) -> Fit:
        """The best epoch's weights, judged on the training part too; nothing can be trained after it."""
        self.weights.copy_(self._best_weights)
        train_loss = self.evaluate(predict(self.model, self.rows, self.train.starts, self.lookback), self.train)
        return Fit(
            model=self.model.cpu(),
            return_target=self.return_target,
            history=self.history,
            best_epoch=self.best_epoch,
            train_loss=train_loss,
            val_loss=self.best_loss,
        )

    def run_epoch(self) -> float:
        """One pass over as many drawn windows as there are; the mean loss of its steps, weighted by their windows."""
        with self._trained_precision():
            return self._run_steps()

    @contextlib.contextmanager
    def _trained_precision(self) -> Iterator[None]:
        self.model.low_precision = self.config.training.precision == "bf16"
        try:
            with matmul_precision(self.config.training.precision):
                yield
        finally:
            self.model.low_precision = False

    def _run_steps(self) -> float:
        batch_size = self.config.training.batch_size
        drawn = draw_epoch(self.sampling, self.config.training.sampler, self.generator).to(self.device)
        masks = draw_dropout_masks(len(drawn), self.config.model, self.generator).to(self.device)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for windows, mask in zip(torch.split(drawn, batch_size), torch.split(masks, batch_size), strict=True):
            inputs = self.rows[self.train.starts[windows][:, None] + self.offsets]
            logits, returns = self.model(inputs, mask)
            loss = self.loss(
                logits,
                returns,
                action=self.train.action[windows],
                target=self.train.target[windows],
                return_weights=None if self.importance is None else self.importance[windows],
            )
            self.gradient.zero_()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.detach() * len(windows)
        return float(total) / len(drawn)

    def evaluate(self, predictions: Predictions, windows: WindowTensors) -> float:
        """The training loss over every window of a part, as it is."""
        with torch.inference_mode():
            return float(
                self.loss(predictions.logits, predictions.returns, action=windows.action, target=windows.target)
            )


def flatten_parameters(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Move all weights and all gradients into one flat buffer each, (n,); the model's tensors become views of them."""
    parameters = list(model.parameters())
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    gradient = torch.zeros_like(weights)
    offset = 0
    for parameter in parameters:
        size = parameter.numel()
        parameter.data = weights[offset : offset + size].view_as(parameter)
        parameter.grad = gradient[offset : offset + size].view_as(parameter)
        offset += size
    return weights, gradient
