"""Finalists and held-out assets: independent trainings on Ray, each recorded as it ends, none done twice."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from b3dist.config import Config
from b3dist.distributed.ledger import Event, read_ledger
from b3dist.distributed.sweep.trouble import TROUBLE
from b3dist.errors import RunError
from b3dist.tuning.scores import AssetScore

_PARTS = ("val", "test")


@dataclass(frozen=True)
class Job:
    """One asset under one trial's parameters and one seed."""

    number: int
    """The trial's."""
    seed: int
    ticker: str
    params: str
    """The parameters as canonical JSON: two trials with the same ones share a job's result."""

    @property
    def key(self) -> tuple[str, int, str]:
        """What its result depends on."""
        return self.params, self.seed, self.ticker


class Evaluations:
    """Results by job, from the ledger and as they come."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._results: dict[tuple[str, int, str], Mapping[str, Any]] = {}
        for event in events:
            if event["event"] == "evaluated":
                result = dict(event["result"])
                if "error" not in result:
                    _ = [AssetScore.from_dict(result[part]) for part in _PARTS]
                self._results[(event["params"], event["seed"], event["ticker"])] = result

    @classmethod
    def of(cls, ledger: Path) -> Self:
        """What a ledger holds.

        Raises:
            RunError: it is damaged.
        """
        events = read_ledger(ledger)
        try:
            return cls(events)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise RunError(f"{ledger} is damaged: an evaluation is {error!r}", hint="start a new sweep") from error

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Jobs without a result, each once."""
        return list({job.key: job for job in jobs if job.key not in self._results}.values())

    def add(self, job: Job, result: Mapping[str, Any]) -> None:
        """A job's result."""
        self._results[job.key] = result

    def score(self, job: Job, part: str) -> AssetScore | None:
        """A job's score on `val` or `test`; None if it failed."""
        result = self._results[job.key]
        return None if "error" in result else AssetScore.from_dict(dict(result[part]))

    def error(self, job: Job) -> str | None:
        """Why a job failed, or None."""
        error = self._results[job.key].get("error")
        return None if error is None else str(error)


def run_jobs(
    ray: Any,
    start: Callable[[Sequence[Job]], Any],
    packs: Sequence[Sequence[Job]],
    *,
    at_once: int,
    on_result: Callable[[Job, Mapping[str, Any]], None],
) -> None:
    """Run packs of jobs as Ray tasks, so many at once, and hand over each job's result.

    Args:
        ray: connected.
        start: starts a pack and returns the reference of its results.
        packs: in the order of work.
        at_once: most tasks waiting or running.
        on_result: called from this thread. The jobs of a pack that raised, or whose workers died several times, are
            tried one by one.

    Raises:
        RunError: the lake or a disk is in trouble; or, once all else is done, a job's workers died although it was
            alone. Neither is a result: a resumed sweep tries again.
    """
    lost: dict[str, str] = {}
    waiting = list(reversed(packs))
    running: dict[Any, Sequence[Job]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            pack = waiting.pop()
            running[start(pack)] = pack
        done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)  # the timeout lets signals in
        for reference in done:
            pack = running.pop(reference)
            try:
                results = ray.get(reference)
            except ray.exceptions.RayError as error:
                if len(pack) > 1:
                    waiting += [[job] for job in reversed(pack)]
                    continue
                lost[pack[0].ticker] = type(error).__name__
                continue
            for job, result in zip(pack, results, strict=True):
                if TROUBLE in result:
                    raise RunError(result[TROUBLE]["message"], hint=result[TROUBLE]["hint"])
                on_result(job, result)
    if lost:
        raise RunError(
            f"the workers that trained {', '.join(lost)} died again and again ({next(iter(lost.values()))})",
            hint="free memory or use fewer --workers, then resume the sweep",
        )


def with_seed(config: Config, seed: int) -> Config:
    """The configuration under another seed."""
    return config.replace_setting("seed", seed)
