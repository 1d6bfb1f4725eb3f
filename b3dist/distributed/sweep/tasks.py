"""What else of a sweep runs on Ray: evaluations after the search, how many models a worker holds, who has ended."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray

from b3dist.config import Config
from b3dist.distributed.sweep.trial import Assets, TrialSettings
from b3dist.distributed.sweep.trouble import TROUBLE, describe_trouble, ends_sweep
from b3dist.errors import describe_error

if TYPE_CHECKING:  # torch is imported where training happens
    from b3dist.tuning.scores import AssetScore

Training = tuple[str, Config]
"""An asset to train to its end, and how."""


def as_task(function: Callable[..., Any], *, gpus: float) -> Any:
    """A function as a Ray task on one core and a share of GPUs.

    Declared with its GPUs, not given them by `options`: only then does Ray end its process afterwards, which would else
    keep memory of a GPU that the next task has, and stay on that GPU itself when it is given another.
    """
    return ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)(function)


def evaluate(settings: TrialSettings, trainings: Sequence[Training]) -> list[dict[str, Any]]:
    """Train assets to their end; each one's scores by part, an error, or the trouble that ends the sweep.

    Raises:
        Exception: with several, what is no asset's own error; the caller tries them one by one.
    """
    started = time.perf_counter()
    try:
        outcomes = _evaluate(settings, trainings)
    except Exception as error:
        if ends_sweep(error):
            return [{TROUBLE: describe_trouble(error)}] * len(trainings)
        if len(trainings) > 1:
            raise
        outcomes = [error]
    seconds = round((time.perf_counter() - started) / len(trainings), 3)
    return [
        {"error": describe_error(outcome)}
        if isinstance(outcome, Exception)
        else {**{name: score.to_dict() for name, score in outcome.items()}, "seconds": seconds}
        for outcome in outcomes
    ]


def _evaluate(
    settings: TrialSettings, trainings: Sequence[Training]
) -> "Sequence[Mapping[str, AssetScore] | Exception]":
    from b3dist.training.fused_data import StackMember
    from b3dist.tuning.cohort import evaluate_asset
    from b3dist.tuning.stacked_cohort import evaluate_stacked

    assets, members = Assets(settings), {}
    outcomes: dict[int, Mapping[str, AssetScore] | Exception] = {}
    for place, (ticker, config) in enumerate(trainings):
        try:
            members[place] = StackMember(data=assets.load(ticker, config), config=config)
            if not settings.stack:
                outcomes[place] = evaluate_asset(members[place].data, config, device=settings.device)
        except Exception as error:
            if ends_sweep(error):
                raise
            outcomes[place] = error
    if settings.stack:
        scores = evaluate_stacked(list(members.values()), device=settings.device, gpu_share=settings.gpu_share)
        outcomes |= zip(members, scores, strict=True)
    return [outcomes[place] for place in range(len(trainings))]


def models_at_once(settings: TrialSettings) -> int:
    """How many models a worker holds as one stack; asked where it will train, as the driver may have no GPU."""
    from b3dist.data.lake import Lake
    from b3dist.training.packs import models_of_lake

    return models_of_lake(Lake(settings.lake), settings.base, device=settings.device, gpu_share=settings.gpu_share)


class EndedTrials:
    """Trials that the study has ended, for the workers that train them; Tune has no way to tell a running one.

    Made where Ray is connected, and handed to the workers. What is added is seen by every call that begins afterwards.
    """

    def __init__(self) -> None:
        # Begun again after a death it knows nothing: then ended trials are trained on, and not listened to.
        self._actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Ended).remote()

    def add(self, numbers: Iterable[int]) -> None:
        """These have ended; returns once that is known."""
        ray.get(self._actor.add.remote(list(numbers)))

    def among(self, numbers: Sequence[int]) -> list[int]:
        """Those of the numbers that have ended."""
        ended: list[int] = ray.get(self._actor.among.remote(numbers))
        return ended


class _Ended:
    """In a process of its own; `EndedTrials` is the way to it."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()

    def add(self, numbers: list[int]) -> None:
        """Note trials that have ended."""
        self._numbers.update(numbers)

    def among(self, numbers: list[int]) -> list[int]:
        """Which of these have ended."""
        return [number for number in numbers if number in self._numbers]
