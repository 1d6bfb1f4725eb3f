"""What runs on Ray: a trial as a Tune trainable whose actor is used again, and one asset's evaluation as a task."""

import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.tune import Trainable

from b3dist.config import Config, DataConfig
from b3dist.errors import B3distError

if TYPE_CHECKING:  # torch is imported where training happens
    from b3dist.data.windows import AssetData
    from b3dist.tuning.cohort import CohortTraining

REPORT = "report"
"""Key of a trial's result: its report as JSON text, since Tune flattens nested results."""


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """What a worker needs to know of a sweep; travels once."""

    lake: Path
    lake_manifest_hash: str
    base: Config
    cohort: tuple[str, ...]
    use_gpu: bool = False

    @property
    def device(self) -> str:
        """Where to train."""
        return "cuda" if self.use_gpu else "cpu"


class CohortTrial(Trainable):  # type: ignore[misc]  # Ray ships no type hints
    """One hyperparameter set on the cohort; a step is an epoch of every asset.

    Nothing a trial raises reaches Tune, which would start it again: a step answers with the error, and is the last.
    """

    def setup(self, config: dict[str, Any], settings: TrialSettings) -> None:
        """Begin the first trial of this actor."""
        self._settings = settings
        self._assets = Assets(settings)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this actor: imports, lake and prepared assets are there already."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """An epoch of every asset."""
        started = time.perf_counter()
        try:
            report = self._advance()
        except Exception as error:  # noqa: BLE001  whatever a trial raises, the sweep goes on
            report = {"error": describe_error(error), "finished": True}
        self._seconds += time.perf_counter() - started
        report["seconds"] = round(self._seconds, 4)
        return {REPORT: json.dumps(report), "done": report["finished"]}

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._params = json.loads(config["params"])
        self._training: CohortTraining | None = None
        self._seconds = 0.0

    def _advance(self) -> dict[str, Any]:
        from b3dist.tuning.cohort import CohortTraining

        if self._training is None:
            config = self._settings.base
            for name, value in self._params.items():
                config = config.replace_setting(name, value)
            assets = [self._assets.load(ticker, config) for ticker in self._settings.cohort]
            self._training = CohortTraining(assets, config, device=self._settings.device)
        report = self._training.advance()
        answer: dict[str, Any] = {
            "epoch": report.epoch,
            "finished": report.finished,
            "windows_trained": report.windows_trained,
        }
        answer["assets"] = {ticker: score.to_dict() for ticker, score in report.assets.items()}
        return answer


class Assets:
    """A worker's prepared assets; those of the last few data configurations are kept."""

    def __init__(self, settings: TrialSettings) -> None:
        from b3dist.data.lake import Lake

        self._lake: Lake = Lake(settings.lake)
        if self._lake.manifest_hash != settings.lake_manifest_hash:
            raise B3distError(f"the lake {settings.lake} was changed while the sweep went on", hint="start a new sweep")
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


@ray.remote(max_retries=3)  # type: ignore[untyped-decorator]
def evaluate(settings: TrialSettings, ticker: str, config: Config) -> dict[str, Any]:
    """Train one asset to its end; its scores by part, or an error."""
    from b3dist.tuning.cohort import evaluate_asset

    started = time.perf_counter()
    try:
        scores = evaluate_asset(Assets(settings).load(ticker, config), config, device=settings.device)
    except Exception as error:  # noqa: BLE001  recorded with the evaluation
        return {"error": describe_error(error)}
    parts = {name: score.to_dict() for name, score in scores.items()}
    return {**parts, "seconds": round(time.perf_counter() - started, 3)}


def describe_error(error: Exception) -> str:
    """One line: the error's type, message and innermost place."""
    if isinstance(error, B3distError):
        return error.message
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
