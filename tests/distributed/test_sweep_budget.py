"""A sweep on a real Ray cluster whose time is up before its trials: it comes to a verdict, and goes on when resumed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from b3dist.data.lake import Lake
from b3dist.distributed.cluster import connected
from b3dist.distributed.fleet.options import FleetOptions
from b3dist.distributed.ledger import read_ledger
from b3dist.distributed.sweep.budget import TimeBudget
from b3dist.distributed.sweep.drive import drive_sweep
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.plan import SweepRequest, new_sweep
from b3dist.errors import ConfigError
from b3dist.tuning.journal import read_trials
from tests.distributed.sweeps import BASE

UNTRACKED = FleetOptions(workers=2, tracking=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two logical cores whatever the machine has."""
    with connected("local", num_cpus=2):
        yield


class Countdown:
    """An hour has gone by once so many trials have begun."""

    def __init__(self, sweep: SweepFolder, *, trials: int) -> None:
        self._sweep = sweep
        self._trials = trials

    def __call__(self) -> float:
        """Seconds."""
        journal = self._sweep.journal
        begun = read_trials(journal) if journal.is_file() and journal.stat().st_size else []
        return 3601.0 if sum(one.state != "waiting" for one in begun) >= self._trials else 0.0


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_sweep_out_of_time_ends_with_a_verdict_and_goes_on_from_there(small_lake: Path, tmp_path: Path) -> None:
    """Three of six trials begin, end and are judged; resumed, the other three follow and it is judged again."""
    base = BASE.with_overrides(["training.epochs=2"])
    request = SweepRequest(trials=6, cohort_size=2, finalists=1, seeds=1, held_out=1)
    sweep = new_sweep(Lake(small_lake), tmp_path, base, request)
    first = drive_sweep(sweep, UNTRACKED, budget=TimeBudget(1.0, clock=Countdown(sweep, trials=3)))
    assert (first["state"], first["stopped"]) == ("finished", "stopped by --max-hours after 3 of 6 trials")
    assert (first["totals"]["trials"], first["totals"]["left"]) == (3, 3)
    assert first["finalists"][0]["number"] == 0
    assert first["verdict"]["reason"]
    assert sweep.best.is_file()
    before = read_trials(sweep.journal)
    assert [one.state for one in before] == ["complete"] * 3

    seen: list[Any] = []
    second = drive_sweep(SweepFolder.open(tmp_path, sweep.run.run_id), UNTRACKED, on_progress=seen.append)
    assert (second["state"], second["stopped"], second["totals"]["trials"]) == ("finished", None, 6)
    assert read_trials(sweep.journal)[:3] == before
    assert seen[0].stage == "search"
    evaluated = [event for event in read_ledger(sweep.run.ledger) if event["event"] == "evaluated"]
    keys = [(event["params"], event["seed"], event["ticker"]) for event in evaluated]
    assert len(keys) == len(set(keys)), "what the first verdict was drawn from was not trained again"
    assert json.loads((sweep.run.path / "summary.json").read_text(encoding="utf-8"))["stopped"] is None


@pytest.mark.parametrize("hours", [-0.1, float("nan"), float("inf"), 9000.0])
def test_hours_that_cannot_be_meant_are_refused(hours: float) -> None:
    """With an example."""
    with pytest.raises(ConfigError, match="hours to search must be between 0 and 8760") as refused:
        TimeBudget(hours)
    assert "--max-hours 8" in refused.value.hint


def test_a_budget_runs_from_when_it_is_made() -> None:
    """Down to nothing, and not below."""
    seconds = [50.0]
    budget = TimeBudget(0.5, clock=lambda: seconds[0])
    assert (budget.left_s, budget.is_spent) == (1800.0, False)
    seconds[0] += 1700
    assert (budget.left_s, budget.is_spent) == (100.0, False)
    seconds[0] += 200
    assert (budget.left_s, budget.is_spent) == (0.0, True)
