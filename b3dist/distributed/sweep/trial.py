"""What a worker of a sweep does: a pack of trials as a Tune trainable whose actor is used again."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from b3dist.config import Config, DataConfig
from b3dist.distributed.sweep.trouble import TROUBLE, describe_trouble, ends_sweep
from b3dist.errors import LakeError, describe_error
from b3dist.tuning.space import Params

if TYPE_CHECKING:  # torch is imported where training happens
    from b3dist.data.windows import AssetData
    from b3dist.tuning.cohort import Cohort, CohortReport, Trials

TRIALS = "trials"
"""Key of a pack's configuration: its trials as JSON text, as Tune would put each value into names."""
REPORTS = "reports"
"""Key of a pack's result: its trials' reports as JSON text, since Tune flattens nested results."""

EndedAmong = Callable[[Sequence[int]], Sequence[int]]
"""Which of these trials the study has ended."""


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """What a worker needs to know of a sweep; travels once."""

    lake: Path
    lake_manifest_hash: str
    base: Config
    cohort: tuple[str, ...]
    stack: bool = False
    """Whether models are trained as stacks, not one after the other."""
    gpu_share: float = 0.0
    """Of a GPU, per worker; 0 trains on CPUs."""

    @property
    def device(self) -> str:
        """Where to train."""
        return "cuda" if self.gpu_share > 0 else "cpu"


class TrialPack(Trainable):  # type: ignore[misc]  # Ray ships no type hints
    """Some hyperparameter sets on the cohort; a step is an epoch of every asset under each of them.

    Nothing a trial raises reaches Tune, which would start the pack again: its last report is the error. What is wrong
    with the lake or a disk is no trial's own: it is the pack's only result.
    """

    def setup(self, config: dict[str, Any], settings: TrialSettings, ended_among: EndedAmong | None) -> None:
        """Begin the first pack of this actor."""
        self._settings = settings
        self._ended_among = ended_among
        self._assets: Assets | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another pack in this actor: imports, lake and prepared assets are there already."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """An epoch of every asset, by trial; a trial's seconds are its share of the pack's."""
        started = time.perf_counter()
        try:
            reports = self._advance()
        except Exception as error:  # noqa: BLE001  what a pack raises is kept from Tune
            if ends_sweep(error):
                return {TROUBLE: json.dumps(describe_trouble(error)), "done": True}
            reports = {number: _failure(error) for number in self._seconds}
        share = (time.perf_counter() - started) / max(1, len(reports))
        for number, report in reports.items():
            self._seconds[number] += share
            report["seconds"] = round(self._seconds[number], 4)
            if report["finished"]:
                del self._seconds[number]
        return {REPORTS: json.dumps(reports), "done": not self._seconds}

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._params: dict[int, Params] = {one["number"]: one["params"] for one in json.loads(config[TRIALS])}
        self._seconds = dict.fromkeys(self._params, 0.0)
        self._training: Trials | None = None

    def _advance(self) -> dict[int, dict[str, Any]]:
        # One alone is stopped by Tune. Of a pack begun again after a worker's death some may have ended before.
        several = len(self._params) > 1
        ended = self._ended_among(list(self._seconds)) if several and self._ended_among is not None else ()
        for number in ended:
            del self._seconds[number]
        reports: dict[int, dict[str, Any]] = {}
        if self._training is None:
            self._training, reports = self._prepare()
        else:
            self._training.drop(ended)
        return {**reports, **{number: _describe(report) for number, report in self._training.advance().items()}}

    def _prepare(self) -> tuple["Trials", dict[int, dict[str, Any]]]:
        """The trials ready to train, and reports of those that cannot be."""
        from b3dist.tuning.cohort import SingleTrials

        if self._assets is None:  # not in `setup`, whose errors Tune takes for a death
            self._assets = Assets(self._settings)
        cohorts: dict[int, Cohort] = {}
        failures = {}
        for number in self._seconds:
            try:
                cohorts[number] = self._cohort(self._params[number], self._assets)
            except Exception as error:
                if ends_sweep(error):
                    raise
                failures[number] = _failure(error)
        settings = self._settings
        if not settings.stack:
            return SingleTrials(cohorts, device=settings.device), failures
        from b3dist.tuning.stacked_cohort import StackedTrials

        return StackedTrials(cohorts, device=settings.device, gpu_share=settings.gpu_share), failures

    def _cohort(self, params: Params, known: "Assets") -> "Cohort":
        from b3dist.tuning.cohort import Cohort

        config = self._settings.base
        for name, value in params.items():
            config = config.replace_setting(name, value)
        assets = [known.load(ticker, config) for ticker in self._settings.cohort]
        return Cohort(assets=assets, config=config)


def _describe(report: "CohortReport | Exception") -> dict[str, Any]:
    if isinstance(report, Exception):
        return _failure(report)
    return {
        "epoch": report.epoch,
        "finished": report.finished,
        "windows_trained": report.windows_trained,
        "assets": {ticker: score.to_dict() for ticker, score in report.assets.items()},
    }


def _failure(error: Exception) -> dict[str, Any]:
    return {"error": describe_error(error), "finished": True}


class Assets:
    """A worker's prepared assets; those of the last few data configurations are kept.

    Raises:
        LakeError: the lake is gone, damaged or another one than the sweep was begun on.
    """

    def __init__(self, settings: TrialSettings) -> None:
        from b3dist.data.lake import Lake

        self._lake: Lake = Lake(settings.lake)
        if self._lake.manifest_hash != settings.lake_manifest_hash:
            raise LakeError(
                f"the lake {settings.lake} was changed while the sweep went on",
                hint="put it back as it was and resume, or start a new sweep",
            )
        self._known: dict[tuple[str, DataConfig], AssetData] = {}
        self._most = max(64, 2 * len(settings.cohort))

    def load(self, ticker: str, config: Config) -> "AssetData":
        """An asset as this configuration prepares it."""
        from b3dist.training.asset import load_asset

        key = ticker, config.data
        if key not in self._known:
            while len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[key] = load_asset(self._lake, ticker, config)
        return self._known[key]
