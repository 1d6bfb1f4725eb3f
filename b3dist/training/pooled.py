"""Fit one model over all assets, data-parallel: the numerical core, which knows torch.distributed but no Ray.

A step's global batch is a fixed set of windows, cut into micro-batches whose number, size and dropout masks do not
depend on the workers. Each worker computes a run of neighbouring ones and writes each one's gradient into its row of
one buffer; the rows are exchanged as they are, every worker sums all of them in the same order, and the weights are
the same to the bit for any number of workers.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from b3dist.config import Config
from b3dist.data.pooled import PooledData, PooledPart
from b3dist.data.schema import ACTIONS
from b3dist.errors import ConfigError, TrainingError
from b3dist.model.lstm_mtl import LstmMtl, discourage_absent_actions, draw_dropout_masks
from b3dist.training.metrics import macro_f1
from b3dist.training.objective import Objective
from b3dist.training.optimizer import EarlyStopping, FlatAdam, PlateauSchedule
from b3dist.training.precision import fix_order_of_sums, matmul_precision
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.sampling import asset_generator, draw_epoch
from b3dist.training.trainer import EVALUATION_BATCH, EpochRecord, Predictions, flatten_parameters

POOLED = "*"
"""What stands for a ticker where all assets are meant; no ticker can be called so."""


class Workers:
    """The processes that train one model together: all ranks of torch.distributed's group, or this one alone."""

    def __init__(self) -> None:
        grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if grouped else 0
        self.size = torch.distributed.get_world_size() if grouped else 1
        self.waited_s = 0.0
        """Seconds in exchanging gradients and predictions, waiting for slower workers included; CPU only."""

    def combine(self, parts: Tensor) -> None:
        """Fill in, in place, what other workers computed: parts is zero wherever this worker computed nothing."""
        if self.size == 1:
            return
        started = time.perf_counter()
        torch.distributed.all_reduce(parts)
        if parts.device.type == "cpu":
            self.waited_s += time.perf_counter() - started

    def exchange(self, rows: Tensor) -> None:
        """Fill in, in place, the other workers' rows: (size x m, ...), of which worker w has m from w x m on."""
        if self.size == 1:
            return
        started = time.perf_counter()
        blocks = list(rows.chunk(self.size))
        torch.distributed.all_gather(blocks, blocks[self.rank].clone())
        if rows.device.type == "cpu":
            self.waited_s += time.perf_counter() - started

    def mine[T](self, items: "list[T] | tuple[T, ...]") -> Iterator[tuple[int, T]]:
        """This worker's share of a list that every worker has: each item with its number."""
        for number in range(self.rank, len(items), self.size):
            yield number, items[number]


class _PartTensors:
    """A part's windows on the device: first rows, labels, and targets in the trained unit."""

    def __init__(self, part: PooledPart, lookback: int, targets: list[ReturnTarget], device: torch.device) -> None:
        mean = np.array([target.mean for target in targets])[part.asset]
        scale = np.array([target.scale for target in targets])[part.asset]
        encoded = ((part.future_return - mean) / scale).astype(np.float32)
        self.starts = torch.from_numpy(part.ends - lookback + 1).to(device)
        self.action = torch.from_numpy(part.action).to(device)
        self.target = torch.from_numpy(encoded).to(device)
        self.future_return = part.future_return
        self.mean, self.scale = mean, scale

    def __len__(self) -> int:
        return len(self.starts)


class PooledFitting:
    """One model's training over all assets; iterate `epochs`, then read `best_model`.

    Args:
        data: the same on every worker.
        config: the same on every worker.
        device: cpu or cuda.
        workers: who takes part; None: as torch.distributed says.

    Raises:
        ConfigError: more workers than micro-batches in a step.
    """

    def __init__(
        self, data: PooledData, config: Config, *, device: str = "cpu", workers: Workers | None = None
    ) -> None:
        torch.set_num_threads(1)
        self.data = data
        self.config = config
        self.workers = workers or Workers()
        self.device = torch.device(device)
        fix_order_of_sums(self.device)
        self.num_micro_batches = math.ceil(config.training.batch_size / config.training.micro_batch)
        if self.workers.size > self.num_micro_batches:
            raise ConfigError(
                f"{self.workers.size} workers asked for, but a batch of {config.training.batch_size} windows has only"
                f" {self.num_micro_batches} micro-batches of {config.training.micro_batch}",
                hint="raise training.batch_size, lower training.micro_batch, or use fewer workers",
            )
        self.lookback = config.data.lookback
        self.offsets = torch.arange(self.lookback, device=self.device)
        self.rows = torch.from_numpy(data.rows).to(self.device)
        self.pooled_target, self.targets = fit_return_targets(data, config)
        self.parts = {
            name: _PartTensors(data.part(name), self.lookback, self.targets, self.device) for name in ("train", "val")
        }
        objective = Objective.of(data.train.action, config, self.device)
        self.loss, self.sampling, self.importance = objective.loss, objective.sampling, objective.importance
        self.model = LstmMtl(self.rows.shape[1], config.model, generator=asset_generator(config.seed, POOLED))
        discourage_absent_actions(self.model, objective.counts)
        self.model.to(self.device)
        self.weights, self.gradient = flatten_parameters(self.model)
        self.optimizer = FlatAdam(self.weights, self.gradient, config.training)
        self.block = math.ceil(self.num_micro_batches / self.workers.size)
        """Micro-batches of one worker; the last worker may have fewer."""
        self.gradients = torch.zeros(self.block * self.workers.size, len(self.weights) + 1, device=self.device)
        """A row per micro-batch: its share of the step's gradient, and of the step's loss."""
        self.stepping_s = 0.0
        """Seconds in training steps, all-reduce included; the rest of an epoch is validation."""
        self.stepping_cpu_s = 0.0
        """CPU seconds of this process in them."""
        self.history: list[EpochRecord] = []
        self.best_loss, self.best_epoch, self.best_weights = math.inf, 0, self.weights.clone()

    def epochs(self) -> Iterator[EpochRecord]:
        """Train epoch by epoch, from where `restore` left off, until patience or epochs run out.

        Raises:
            TrainingError: the loss stopped being a finite number.
        """
        stopping, schedule, stopped = EarlyStopping(self.config.training), PlateauSchedule(self.config.training), False
        for record in self.history:
            self.optimizer.learning_rate = schedule.update(record.val_loss)
            stopped = stopping.should_stop(record.val_loss)
        while not stopped and len(self.history) < self.config.training.epochs:
            record = self._epoch(len(self.history) + 1)
            self.history.append(record)
            if record.val_loss < self.best_loss:
                self.best_loss, self.best_epoch = record.val_loss, record.epoch
                self.best_weights.copy_(self.weights)
            self.optimizer.learning_rate = schedule.update(record.val_loss)
            stopped = stopping.should_stop(record.val_loss)
            yield record

    def state(self) -> dict[str, Any]:
        """Tensors and plain data with which `restore` goes on as if nothing had happened."""
        return {
            "weights": self.weights.cpu().clone(),
            "best_weights": self.best_weights.cpu().clone(),
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "optimizer": self.optimizer.state(),
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after the last epoch of what `state` returned, in this or another process."""
        self.weights.copy_(state["weights"])
        self.best_weights.copy_(state["best_weights"])
        self.best_loss, self.best_epoch = state["best_loss"], state["best_epoch"]
        self.optimizer.restore(state["optimizer"])
        self.history = [EpochRecord(**record) for record in state["history"]]

    def best_model(self) -> LstmMtl:
        """The model with the weights of the epoch of lowest validation loss, on the CPU; ends the training."""
        self.weights.copy_(self.best_weights)
        return self.model.cpu()

    def predict(self, name: str) -> Predictions:
        """Outputs for every window of the train or val part, dropout off; the workers share the work."""
        starts = self.parts[name].starts
        outputs = torch.zeros(len(starts), len(ACTIONS) + 1, device=self.device)
        with torch.inference_mode(), matmul_precision("fp32"):
            for number, chunk in self.workers.mine(torch.split(starts, EVALUATION_BATCH)):
                logits, returns = self.model(self.rows[chunk[:, None] + self.offsets])
                filled = outputs[number * EVALUATION_BATCH :][: len(chunk)]
                filled[:, :-1], filled[:, -1] = logits, returns
        self.workers.combine(outputs)
        return Predictions(logits=outputs[:, :-1], returns=outputs[:, -1])

    def evaluate(self, name: str, predictions: Predictions, chosen: Tensor | None = None) -> float:
        """The training loss over all windows of a part, or over the chosen ones: (m,) indices."""
        part = self.parts[name]
        logits, returns, action, target = predictions.logits, predictions.returns, part.action, part.target
        if chosen is not None:
            logits, returns, action, target = logits[chosen], returns[chosen], action[chosen], target[chosen]
        with torch.inference_mode():
            return float(self.loss(logits, returns, action=action, target=target))

    def _epoch(self, epoch: int) -> EpochRecord:
        learning_rate = self.optimizer.learning_rate
        started, cpu = time.perf_counter(), time.process_time()
        with matmul_precision("fp32"):  # the only one that a pooled run takes
            train_loss = self._train_epoch(epoch)
        self.stepping_s += time.perf_counter() - started
        self.stepping_cpu_s += time.process_time() - cpu
        predictions, part = self.predict("val"), self.parts["val"]
        val_loss = self.evaluate("val", predictions)
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise TrainingError(
                f"the pooled model diverged at epoch {epoch}: training loss {train_loss}, validation loss {val_loss}",
                hint="lower training.learning_rate or the loss weights",
            )
        returns = predictions.returns.cpu().numpy().astype(np.float64) * part.scale + part.mean
        return EpochRecord(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            val_macro_f1=macro_f1(part.action.cpu().numpy(), predictions.logits.argmax(dim=1).cpu().numpy()),
            val_mae=float(np.abs(returns - part.future_return).mean()),
            learning_rate=learning_rate,
        )

    def _train_epoch(self, epoch: int) -> float:
        """One pass over as many drawn windows as there are; the mean loss, weighted by windows."""
        training = self.config.training
        drawn = draw_epoch(self.sampling, training.sampler, self._generator(epoch)).to(self.device)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        mine = slice(self.workers.rank * self.block, (self.workers.rank + 1) * self.block)
        for step, batch in enumerate(torch.split(drawn, training.batch_size)):
            self.gradients[mine].zero_()
            for number, windows in list(enumerate(torch.split(batch, training.micro_batch)))[mine]:
                masks = draw_dropout_masks(len(windows), self.config.model, self._generator(epoch, step, number))
                self._backward(windows, masks.to(self.device), len(windows) / len(batch), self.gradients[number])
            self.workers.exchange(self.gradients)
            summed = self.gradients[: self.num_micro_batches].sum(dim=0)
            self.gradient.copy_(summed[:-1])
            self.optimizer.step()
            total += summed[-1] * len(batch)
        return float(total) / len(drawn)

    def _backward(self, windows: Tensor, masks: Tensor, share: float, into: Tensor) -> None:
        """Gradient and loss of a micro-batch: windows (B,), weighted by its share of the batch, into: (P + 1,)."""
        part = self.parts["train"]
        logits, returns = self.model(self.rows[part.starts[windows][:, None] + self.offsets], masks)
        loss = share * self.loss(
            logits,
            returns,
            action=part.action[windows],
            target=part.target[windows],
            return_weights=None if self.importance is None else self.importance[windows],
        )
        self.gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        into[:-1], into[-1] = self.gradient, loss.detach()

    def _generator(self, *key: int) -> torch.Generator:
        """What an epoch's windows or a micro-batch's masks are drawn from, independent of what was drawn before."""
        name = ":".join(map(str, (self.config.seed, POOLED, *key)))
        digest = hashlib.sha256(name.encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def fit_return_targets(data: PooledData, config: Config) -> tuple[ReturnTarget, list[ReturnTarget]]:
    """The returns' map into the trained unit: over all assets, and of each; its own if its features have their own."""
    unit = config.loss.return_unit
    pooled = ReturnTarget.fit(data.train.future_return, unit)
    own = [
        ReturnTarget.fit(asset.train.future_return, unit) if scaled else pooled
        for asset, scaled in zip(data.assets, data.own_scale, strict=True)
    ]
    return pooled, own
