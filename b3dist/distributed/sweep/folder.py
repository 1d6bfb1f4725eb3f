"""RUNS/<sweep_id>/: a run folder of kind "sweep", and what it holds beyond one.

config.json     its options say what is searched, on which assets, how much
journal.log     Optuna's journal: every trial; optuna-dashboard and optuna's plots read it
ledger.jsonl    trials settled, finalists' and held-out assets' scores, as they come
best.yaml       the configuration to use: the winner's, or the one the sweep started from
assets/*.yaml   with --per-asset: the configuration for each asset
trials/*.yaml   the configurations of trial 0, the finalists and the Pareto front
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from b3dist.config import Config
from b3dist.errors import ConfigError, RunError, StorageError
from b3dist.run_folder import RunFolder
from b3dist.tuning.space import SearchSpace

KIND: Final = "sweep"
JOURNAL: Final = "journal.log"


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What decides a sweep's numbers besides the configuration it starts from."""

    space: SearchSpace
    cohort: Sequence[str]
    """Assets every trial trains."""
    held_out: Sequence[str]
    """Assets the winner is judged on; none of the cohort's."""
    excluded: dict[str, str]
    """Assets asked for that no model can be trained for, and why."""
    trials: int
    finalists: int
    seeds: int
    """Fresh seeds per finalist, and on held-out assets."""
    two_objectives: bool
    halving: bool
    per_asset: bool
    engine: Literal["single", "stack"] = "single"
    """Models one after the other, or stacks of trials x assets; the same numbers up to the order of float sums."""
    gpus_per_worker: float = 0.0
    """GPUs, or the share of one, that a worker was begun with, and a resumed sweep asks for again."""
    trials_at_once: int | None = None
    """Trials that a worker trains as one stack; None: chosen by what fits and what is left."""
    recipe_epochs: int | None = None
    """Of the named recipe, before files and settings laid over it; None where that is not known."""
    support: Sequence[int] | None = None
    """The cohort's validation windows by action, under the starting configuration; None where that is not known."""

    def __post_init__(self) -> None:
        """Raises ValueError for what no sweep can have been asked for."""
        for name in ("trials", "finalists", "seeds", "trials_at_once"):
            if (value := getattr(self, name)) is not None or name != "trials_at_once":
                _require(name, value, type(value) is int and value >= 1)
        for name in ("two_objectives", "halving", "per_asset"):
            _require(name, getattr(self, name), isinstance(getattr(self, name), bool))
        for name in ("cohort", "held_out"):
            tickers = getattr(self, name)
            _require(name, tickers, isinstance(tickers, list) and all(isinstance(one, str) for one in tickers))
        _require("cohort", self.cohort, len(self.cohort) > 0)
        _require("excluded", self.excluded, isinstance(self.excluded, dict))
        _require("engine", self.engine, self.engine in ("single", "stack"))
        gpus = self.gpus_per_worker
        _require("gpus_per_worker", gpus, type(gpus) in (int, float) and gpus >= 0)

    @property
    def phases(self) -> tuple[str, ...]:
        """What a sweep goes through, in order."""
        return ("search", "finalists", "held-out", *(("per-asset",) if self.per_asset else ()))

    @property
    def most_trainings(self) -> int:
        """Trainings of one asset after the search, if there are as many finalists as may be and one of them wins."""
        own = len(self.cohort) if self.per_asset else 0  # trial 0's are the finalists' already
        return self.seeds * ((self.finalists + 1) * len(self.cohort) + 2 * len(self.held_out) + own)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "space": self.space.to_list()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "SweepPlan":
        """What `to_dict` gave."""
        return cls(**{**content, "space": SearchSpace.from_list(content["space"])})


def _require(name: str, value: object, condition: bool) -> None:
    if not condition:
        raise ValueError(f"options.{name} is {value!r}")


@dataclass(frozen=True)
class SweepFolder:
    """A sweep's folder and plan."""

    run: RunFolder
    plan: SweepPlan

    @property
    def journal(self) -> Path:
        """Optuna's journal file."""
        return self.run.path / JOURNAL

    @property
    def best(self) -> Path:
        """The configuration to use."""
        return self.run.path / "best.yaml"

    def recipe_of(self, trial: int) -> Path:
        """A trial's configuration, where one was written: of trial 0, the finalists and the Pareto front."""
        return self.run.path / "trials" / f"{trial:03}.yaml"

    @property
    def config(self) -> Config:
        """Where the search starts."""
        return self.run.settings.config

    def withdraw_verdict(self) -> None:
        """Delete what a sweep that goes on must not be taken for; by its driver.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            for stale in (self.run.path / "summary.json", *self.run.assets.glob("*.yaml")):
                stale.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot go on with {self.run.path}: {error.strerror}") from error

    @classmethod
    def open(cls, runs: Path, sweep_id: str) -> "SweepFolder":
        """The folder of an existing sweep.

        Raises:
            RunError: no such run, not a sweep, or damaged.
        """
        run = RunFolder.open(runs, sweep_id)
        if run.settings.kind != KIND:
            raise RunError(f"run {sweep_id} is of kind {run.settings.kind}, not a sweep", hint=run.how_to_resume())
        return cls(run, plan_of(run))


def plan_of(run: RunFolder) -> SweepPlan:
    """The plan of a sweep.

    Raises:
        RunError: it is damaged.
    """
    try:
        return SweepPlan.from_dict(dict(run.settings.options))
    except (AttributeError, LookupError, TypeError, ValueError, ConfigError) as error:
        raise RunError(f"{run.path / 'config.json'} is damaged: {error}", hint="start a new sweep") from error
