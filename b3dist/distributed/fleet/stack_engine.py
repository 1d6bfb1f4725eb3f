"""How a worker trains a pack of assets as one stack: load each, fit all together, commit each."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.errors import TrainingError
from b3dist.training.asset import PreparedAsset, TrainedAsset, commit_asset, prepare_training
from b3dist.training.fused import Execution, fit_stack
from b3dist.training.fused_data import StackMember
from b3dist.training.packs import fit_halving, models_of_lake
from b3dist.training.trainer import Fit
from b3dist.training.warm_start import InitialModels


class StackEngine:
    """Trains packs of assets; a pack that does not fit into memory is halved, and so are those after it.

    Args:
        lake: opened.
        config: of the run.
        assets_dir: where bundles are committed.
        device: cpu or cuda.
        gpu_share: of a GPU's memory that this worker may use.
        initial_models: what each asset starts from, if not from drawn weights.
    """

    def __init__(
        self,
        lake: Lake,
        config: Config,
        assets_dir: Path,
        *,
        device: str,
        gpu_share: float = 0.0,
        initial_models: InitialModels | None = None,
    ) -> None:
        self._lake, self._config, self._assets_dir = lake, config, assets_dir
        self._device, self._initial_models = device, initial_models
        self.most = models_of_lake(lake, config, device=device, gpu_share=gpu_share)
        self._execution = Execution.on(device)

    def train(self, tickers: Sequence[str]) -> Iterator[tuple[str, Callable[[], TrainedAsset]]]:
        """Each asset with what commits it, or raises what went wrong with it."""
        started = time.perf_counter()
        prepared: dict[str, PreparedAsset] = {}
        for ticker in tickers:
            try:
                prepared[ticker] = prepare_training(self._lake, ticker, self._config, self._initial_models)
            except Exception as error:  # noqa: BLE001  raised again where this asset is concluded
                yield ticker, functools.partial(_raise, error)
        if not prepared:
            return
        members = [StackMember(data=one.data, config=self._config, start=one.start) for one in prepared.values()]
        try:
            outcomes, size = fit_halving(members, self._fit)
        except Exception as error:  # noqa: BLE001  each asset is charged, waits again, and is then tried alone
            for ticker in prepared:
                yield ticker, functools.partial(_raise, error)
            return
        self.most = min(self.most, size) if size < len(members) else self.most
        seconds = (time.perf_counter() - started) / len(members)
        for (ticker, one), outcome in zip(prepared.items(), outcomes, strict=True):
            if isinstance(outcome, Fit):
                yield ticker, functools.partial(self._commit, one, outcome, seconds)
            else:
                yield ticker, functools.partial(_raise, outcome)

    def _fit(self, members: Sequence[StackMember]) -> list[Fit | TrainingError]:
        return fit_stack(members, device=self._device, execution=self._execution)

    def _commit(self, prepared: PreparedAsset, fit: Fit, seconds: float) -> TrainedAsset:
        return commit_asset(
            prepared, fit, self._config, self._assets_dir, lake=self._lake, engine="stack", fit_seconds=seconds
        )


def _raise(error: Exception) -> NoReturn:
    raise error
