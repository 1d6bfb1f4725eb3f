"""A new sweep: which assets it searches on, and which ones judge its winner; and a longer one."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.data.schema import ACTIONS
from b3dist.distributed.selection import choose_tickers, new_run
from b3dist.distributed.sweep.folder import KIND, SweepFolder, SweepPlan
from b3dist.errors import ConfigError, DataError, InsufficientDataError
from b3dist.training.asset import load_asset
from b3dist.tuning.space import SearchSpace, search_space
from b3dist.tuning.study import sure_epochs, worth_halving

_MOST_REPEATS: Final = 100
"""Finalists, and seeds of each: far more than tells them apart."""


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What a user asks of a sweep."""

    trials: int = 40
    search: Sequence[str] = ()
    """Further settings to search, or other ranges: `section.field[=low:high]`."""
    tickers: Sequence[str] | None = None
    """The cohort; None: a seeded sample."""
    cohort_size: int = 10
    """Of that sample."""
    held_out: int = 20
    """Most assets the winner is judged on."""
    finalists: int = 3
    """Best trials that are tried again under fresh seeds."""
    seeds: int = 3
    two_objectives: bool = False
    halving: bool | None = None
    """Stop trials early; None: where that is worth it (`worth_halving`)."""
    per_asset: bool = False
    engine: Literal["single", "stack"] = "single"
    gpus_per_worker: float = 0.0
    trials_at_once: int | None = None
    """Per worker, on the stack engine; None: automatic."""
    recipe_epochs: int | None = None
    """Of the named recipe; a sweep that trains fewer says so."""

    def __post_init__(self) -> None:
        for name in ("trials", "cohort_size", "finalists", "seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("finalists", "seeds"):
            if getattr(self, name) > _MOST_REPEATS:
                raise ConfigError(
                    f"{name} must be at most {_MOST_REPEATS}, got {getattr(self, name)}",
                    hint="each finalist is trained on the whole cohort under each seed",
                )
        if self.trials_at_once is not None and self.trials_at_once < 1:
            raise ConfigError(f"trials at once must be at least 1, got {self.trials_at_once}")
        if self.trials_at_once is not None and self.engine != "stack":
            raise ConfigError(
                "the single engine trains one trial at a time per worker", hint="--engine stack, or more --workers"
            )
        if not 0 <= self.held_out <= 1000:
            raise ConfigError(f"held_out must be between 0 and 1000, got {self.held_out}")
        if self.halving and (self.per_asset or self.two_objectives):
            # A set that is bad for the cohort, or in one objective, may be the best for an asset, or in the other.
            raise ConfigError(
                "trials are never stopped early with --per-asset or --two-objectives", hint="leave out --halving"
            )
        if self.per_asset and self.two_objectives:
            raise ConfigError(
                "parameters per asset are chosen by macro F1 alone", hint="leave out --two-objectives or --per-asset"
            )


def new_sweep(lake: Lake, runs: Path, base: Config, request: SweepRequest) -> SweepFolder:
    """Make the folder of a new sweep: choose cohort and held-out assets by the run's seed.

    Raises:
        ConfigError: a setting that cannot be searched, a ticker that is not in the lake, no asset to search on.
        StorageError: `runs` cannot be written.
    """
    space = search_space(base, request.search)
    space.start(base)
    known = choose_tickers(lake, None)
    shuffled = list(known)
    random.Random(f"sweep:{base.seed}").shuffle(shuffled)  # noqa: S311  a sample, no secret
    excluded: dict[str, str] = {}
    usable = _Usable(lake, base, space, excluded)
    if request.tickers is not None:
        cohort = [ticker for ticker in choose_tickers(lake, request.tickers) if usable(ticker)]
    else:
        cohort = _first(request.cohort_size, (ticker for ticker in shuffled if usable(ticker)))
    if not cohort:
        why = "; ".join(sorted(set(excluded.values()))[:2])
        raise ConfigError(f"no asset to search on: {why}", hint="name longer histories, or lower --min-sessions")
    asked_for = {name: reason for name, reason in excluded.items() if request.tickers is not None}
    rest = (ticker for ticker in shuffled if ticker not in cohort and usable(ticker))
    plan = SweepPlan(
        space=space,
        cohort=[ticker for ticker in known if ticker in set(cohort)],
        held_out=_first(request.held_out, rest),
        excluded=asked_for,
        trials=request.trials,
        finalists=request.finalists,
        seeds=request.seeds,
        two_objectives=request.two_objectives,
        halving=_halves(request, base),
        per_asset=request.per_asset,
        engine=request.engine,
        gpus_per_worker=request.gpus_per_worker,
        trials_at_once=request.trials_at_once,
        recipe_epochs=request.recipe_epochs,
        support=[sum(usable.support[ticker][action] for ticker in cohort) for action in range(len(ACTIONS))],
    )
    return SweepFolder(new_run(lake, runs, base, tickers=plan.cohort, kind=KIND, options=plan.to_dict()), plan)


def _halves(request: SweepRequest, base: Config) -> bool:
    """Whether trials are stopped early: as asked for, or where it is worth it."""
    if request.per_asset or request.two_objectives:
        return False
    return worth_halving(sure_epochs(base), request.trials) if request.halving is None else request.halving


def extend_sweep(sweep: SweepFolder, trials: int) -> SweepFolder:
    """The same sweep with more trials to try; a verdict it has come to is withdrawn until they are done.

    What comes then differs from a sweep of that many trials from the start: suggestions depend on how many are planned
    (`SMALL_BUDGET`, `SURFACE_SHARE`), and those made already stay.

    Raises:
        ConfigError: fewer than planned.
        RunError: it is being driven.
        StorageError: the folder cannot be written.
    """
    if trials < sweep.plan.trials:
        raise ConfigError(
            f"sweep {sweep.run.run_id} has {sweep.plan.trials} trials planned, got --trials {trials}",
            hint=f"--trials {sweep.plan.trials} or more, or leave it out",
        )
    if trials == sweep.plan.trials:
        return sweep
    plan = replace(sweep.plan, trials=trials)
    with sweep.run.driven():
        sweep.withdraw_verdict()  # first: without it, and with the old plan, it would only be drawn again
        return SweepFolder(sweep.run.replace_options(plan.to_dict()), plan)


class _Usable:
    """Whether an asset can be trained, under the base configuration and under the longest lookback searched."""

    def __init__(self, lake: Lake, base: Config, space: SearchSpace, excluded: dict[str, str]) -> None:
        longest = {one.name: one.high for one in space.dimensions if one.name == "data.lookback"}
        self._lake = lake
        self._configs = [base, space.apply(base, longest)] if longest else [base]
        self._excluded = excluded
        self.support: dict[str, list[int]] = {}
        """Validation windows by action, of the assets that can be trained."""
        self._sessions = dict(lake.tickers()[["ticker", "num_sessions"]].itertuples(index=False, name=None))

    def __call__(self, ticker: str) -> bool:
        if ticker in self._excluded:
            return False
        needed = self._configs[0].data.min_sessions
        if self._sessions[ticker] < needed:  # known without reading a bar
            self._excluded[ticker] = f"{ticker} has {self._sessions[ticker]} sessions, expected at least {needed}"
            return False
        try:
            base, *_ = [load_asset(self._lake, ticker, config) for config in self._configs]
        except (InsufficientDataError, DataError) as error:
            self._excluded[ticker] = error.message
            return False
        self.support[ticker] = np.bincount(base.val.action, minlength=len(ACTIONS)).tolist()
        return True


def _first(number: int, tickers: Iterator[str]) -> list[str]:
    return [ticker for _, ticker in zip(range(number), tickers, strict=False)]
