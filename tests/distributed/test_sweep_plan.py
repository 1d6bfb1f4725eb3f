"""A sweep's plan and what it leaves behind: who is in it, what best.yaml says, what a resumed driver finds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.fleet.options import FleetOptions
from b3dist.distributed.run_list import list_runs, run_status
from b3dist.distributed.sweep.drive import drive_sweep, search_settings
from b3dist.distributed.sweep.evaluations import Evaluations, Job
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.outcome import finished_summary
from b3dist.distributed.sweep.plan import SweepRequest, extend_sweep, new_sweep
from b3dist.errors import ConfigError, RunError
from b3dist.recipes import outcome
from b3dist.training.asset import load_asset
from b3dist.tuning.journal import read_trials
from b3dist.tuning.study import Search
from tests.distributed.runs import start_run
from tests.distributed.sweeps import BASE, concluded, searched


def test_the_cohort_is_a_seeded_sample_and_the_rest_is_held_out(small_lake: Path, tmp_path: Path) -> None:
    """The same seed, the same assets; no asset is in both."""
    lake = Lake(small_lake)
    plans = [new_sweep(lake, tmp_path, BASE, SweepRequest(cohort_size=2)).plan for _ in range(2)]
    assert plans[0] == plans[1]
    assert len(plans[0].cohort) == 2
    assert not set(plans[0].cohort) & set(plans[0].held_out)
    seeds = {
        tuple(new_sweep(lake, tmp_path, BASE.replace_setting("seed", seed), SweepRequest(cohort_size=2)).plan.cohort)
        for seed in range(6)
    }
    assert len(seeds) > 1


def test_assets_that_cannot_be_trained_are_left_out_and_named(small_lake: Path, tmp_path: Path) -> None:
    """Too short for the settings, or for the longest lookback searched."""
    lake = Lake(small_lake)
    sessions = lake.tickers().set_index("ticker")["num_sessions"]
    shortest = str(sessions.idxmin())
    base = BASE.replace_setting("data.min_sessions", int(sessions.min()) + 1)
    others = [str(ticker) for ticker in sessions.index if sessions[ticker] > sessions.min()][:2]
    plan = new_sweep(lake, tmp_path, base, SweepRequest(tickers=[shortest, *others])).plan
    assert set(plan.cohort) == set(others)
    assert shortest in plan.excluded[shortest]
    assert shortest not in plan.held_out
    with pytest.raises(ConfigError, match="no asset to search on"):
        new_sweep(lake, tmp_path, base, SweepRequest(tickers=[shortest]))


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": 0},
        {"seeds": 0},
        {"seeds": 10**9},
        {"finalists": 101},
        {"per_asset": True, "two_objectives": True},
        {"per_asset": True, "halving": True},
        {"two_objectives": True, "halving": True},
    ],
)
def test_requests_that_make_no_sense_are_refused(changes: dict[str, int]) -> None:
    """Before any folder is made."""
    with pytest.raises(ConfigError):
        SweepRequest(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("epochs", "patience", "request_", "expected"),
    [
        (50, 20, {}, True),
        (12, 20, {}, True),
        (11, 20, {}, False),
        (50, 10, {}, False),
        (50, 20, {"trials": 14}, False),
        (9, 20, {"trials": 8, "halving": True}, True),
        (50, 20, {"halving": False}, False),
        (50, 20, {"per_asset": True}, False),
        (50, 20, {"two_objectives": True}, False),
    ],
)
def test_trials_are_stopped_early_where_the_rung_says_something_or_on_request(
    small_lake: Path, tmp_path: Path, epochs: int, patience: int, request_: dict[str, Any], expected: bool
) -> None:
    """From four epochs on, which are a third of those sure to be trained, and with trials enough."""
    base = BASE.with_overrides([f"training.epochs={epochs}", f"training.patience={patience}"])
    sweep = new_sweep(Lake(small_lake), tmp_path, base, SweepRequest(cohort_size=2, **request_))
    assert sweep.plan.halving is expected


def test_a_plan_survives_its_file(small_lake: Path, tmp_path: Path) -> None:
    """Ranges included; another kind of run is no sweep."""
    request = SweepRequest(cohort_size=2, search=["data.lookback=20:40", "loss.gamma=1:4"])
    sweep = new_sweep(Lake(small_lake), tmp_path, BASE, request)
    again = SweepFolder.open(tmp_path, sweep.run.run_id)
    assert again.plan == sweep.plan
    assert again.config == BASE
    fleet = start_run(small_lake, tmp_path)
    with pytest.raises(RunError, match="is of kind fleet, not a sweep"):
        SweepFolder.open(tmp_path, fleet.run_id)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["space", 0, "name"], "foo.bar"),
        (["space", 0, "low"], "x"),
        (["space", 0, "low"], 9.0),
        (["space"], []),
        (["trials"], "x"),
        (["seeds"], 0),
        (["held_out"], None),
        (["cohort"], "SIMA3"),
        (["excluded"], []),
        (["engine"], "both"),
        (["halving"], None),
        (["gpus_per_worker"], "1"),
        (["gpus_per_worker"], -1),
    ],
)
def test_a_damaged_plan_is_called_that(small_lake: Path, tmp_path: Path, place: list[str | int], value: object) -> None:
    """With the name of its file."""
    sweep = new_sweep(Lake(small_lake), tmp_path, BASE, SweepRequest(cohort_size=2))
    file = sweep.run.path / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    part = content["options"]
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        SweepFolder.open(tmp_path, sweep.run.run_id)


@pytest.mark.parametrize(
    "line",
    [
        {"event": "evaluated"},
        {"event": "evaluated", "params": "{}", "seed": 1, "ticker": "A", "result": {"val": {}, "test": {}}},
        {"event": "evaluated", "params": "{}", "seed": 1, "ticker": "A", "result": None},
        {"event": "evaluated", "params": ["x"], "seed": 1, "ticker": "A", "result": {"error": "x"}},
        {"event": "trial"},
        {"event": "trial", "number": "x", "state": "complete"},
        {"event": "trial", "number": 1, "state": None},
    ],
)
def test_a_damaged_ledger_is_called_that(small_lake: Path, tmp_path: Path, line: dict[str, object]) -> None:
    """Before the sweep goes on."""
    sweep = searched(small_lake, tmp_path, trials=2)
    with sweep.run.ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(RunError, match=r"ledger\.jsonl is damaged"):
        drive_sweep(sweep, FleetOptions())


def test_only_a_whole_summary_ends_a_sweep_for_good(small_lake: Path, tmp_path: Path) -> None:
    """One that is damaged, interrupted or without its best.yaml is made again from journal and ledger."""
    sweep = searched(small_lake, tmp_path)
    assert finished_summary(sweep) is None
    concluded(sweep, adopted=True)
    file = sweep.run.path / "summary.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    assert finished_summary(sweep) == {"engine": "single", **whole}
    for damaged in ([], {}, {**whole, "state": "interrupted"}, {**whole, "verdict": None}, {**whole, "totals": 1}):
        file.write_text(json.dumps(damaged), encoding="utf-8")
        assert finished_summary(sweep) is None
    file.write_text(json.dumps(whole), encoding="utf-8")
    sweep.best.unlink()
    assert finished_summary(sweep) is None


@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize("base", [BASE, outcome().with_overrides(["data.min_sessions=300"])], ids=["card", "outcome"])
def test_best_yaml_means_the_same_over_any_recipe(
    small_lake: Path, tmp_path: Path, base: Config, adopted: bool
) -> None:
    """The winner's values if adopted, else the base itself; the whole configuration either way."""
    sweep = concluded(searched(small_lake, tmp_path, base=base), adopted=adopted)
    content = yaml.safe_load(sweep.best.read_text(encoding="utf-8"))
    best = max((one for one in read_trials(sweep.journal) if one.values), key=lambda one: one.values or (0.0,))
    expected = sweep.plan.space.apply(base, best.params) if adopted else base
    assert Config.from_dict(content) == expected
    assert Config.from_dict(content, base=outcome()) == expected
    assert (expected != base) is adopted


def test_choices_per_asset_are_written_only_if_they_are_better(small_lake: Path, tmp_path: Path) -> None:
    """A recipe file per asset."""
    kept = concluded(searched(small_lake, tmp_path / "kept", per_asset=True), adopted=False)
    assert not list(kept.run.assets.iterdir())
    better = concluded(searched(small_lake, tmp_path / "better", per_asset=True), adopted=True)
    assert {path.name for path in better.run.assets.iterdir()} == {f"{one}.yaml" for one in better.plan.cohort}
    assert not better.plan.halving


def test_runs_list_and_status_know_a_sweep_without_reading_its_journal(small_lake: Path, tmp_path: Path) -> None:
    """Before its verdict it is interrupted; each trial's state, the abandoned one's too."""
    sweep = searched(small_lake, tmp_path)
    info = list_runs(tmp_path)[0]
    assert (info.kind, info.state, info.trials, info.trained, info.failed) == ("sweep", "interrupted", 9, 8, 1)
    concluded(sweep, adopted=True)
    status = run_status(tmp_path, sweep.run.run_id)
    assert status["state"] == "finished"
    states = {entry["trial"]: entry["state"] for entry in status["entries"]}
    assert (states[0], states[3], states[5], states[6]) == ("complete", "failed", "abandoned", "complete")
    assert status["entries"][0]["macro_f1"] == 0.4


def test_no_training_is_done_twice() -> None:
    """What the ledger holds is not asked for again, whichever trial it was done for; equal jobs are done once."""
    score = {"confusion": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "squared_error": 1.0, "naive_squared_error": 1.0}
    events = [
        {"event": "opened"},
        {"event": "evaluated", "params": "{}", "seed": 1, "ticker": "A", "result": {"val": score, "test": score}},
        {"event": "evaluated", "params": "{}", "seed": 2, "ticker": "A", "result": {"error": "diverged"}},
    ]
    evaluations = Evaluations(events)
    jobs = [Job(number, seed, "A", "{}") for number in (0, 4) for seed in (1, 2, 3)]
    assert evaluations.missing(jobs) == [Job(4, 3, "A", "{}")]
    done = evaluations.score(jobs[0], "test")
    assert done is not None
    assert done.macro_f1 == 1.0
    assert evaluations.score(jobs[1], "test") is None
    assert evaluations.error(jobs[1]) == "diverged"


def test_a_longer_sweep_withdraws_its_verdict_and_goes_on_where_it_was(small_lake: Path, tmp_path: Path) -> None:
    """The trials made stay; as many more are asked for as are missing. Files of the old verdict do not outlive it."""
    sweep = concluded(searched(small_lake, tmp_path, per_asset=True), adopted=True)
    before = read_trials(sweep.journal)
    extend_sweep(sweep, 12)
    again = SweepFolder.open(tmp_path, sweep.run.run_id)
    assert again.plan == replace(sweep.plan, trials=12)
    assert finished_summary(again) is None
    assert not list(again.run.assets.glob("*.yaml"))
    assert list_runs(tmp_path)[0].state == "interrupted"
    search = Search(search_settings(again), again.journal)
    asked = []
    while (suggestion := search.ask()) is not None:
        asked.append(suggestion.number)
    assert len(asked) == 3
    assert read_trials(sweep.journal)[: len(before)] == before


def test_a_plan_counts_the_events_its_trials_will_be_judged_on(small_lake: Path, tmp_path: Path) -> None:
    """The cohort's validation windows by action, and nobody else's."""
    lake = Lake(small_lake)
    plan = new_sweep(lake, tmp_path, BASE, SweepRequest(cohort_size=2)).plan
    actions = np.concatenate([load_asset(lake, ticker, BASE).val.action for ticker in plan.cohort])
    assert plan.support == [int((actions == action).sum()) for action in range(3)]
