"""Packs of trials between Tune and the study, without a cluster: Tune's calls are made here, in Tune's order."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.search import Searcher

from b3dist.data.lake import Lake
from b3dist.distributed.sweep.budget import TimeBudget
from b3dist.distributed.sweep.drive import engine_of, search_settings
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.plan import SweepRequest, new_sweep
from b3dist.distributed.sweep.suggest import PackSizes, Suggest, TrialEvent
from b3dist.distributed.sweep.tasks import evaluate
from b3dist.distributed.sweep.trial import REPORTS, TRIALS, TrialPack, TrialSettings
from b3dist.distributed.sweep.trouble import TROUBLE
from b3dist.tuning.journal import TrialRecord, load_study, read_trials
from b3dist.tuning.space import Params
from b3dist.tuning.study import Search
from tests.distributed.sweeps import BASE

Engine = Literal["single", "stack"]
SEARCHED = ["training.learning_rate=1e-4:1e30", "model.hidden_size=8:16"]
SETS: list[Params] = [
    {"model.hidden_size": 9},
    {"training.learning_rate": 1e30},
    {"model.dropout": 0.7, "training.learning_rate": 1e-2},
    {"model.hidden_size": 16, "loss.gamma": 0.5},
    {"loss.return_weight": 400.0},
    {"training.learning_rate": 1e30, "model.hidden_size": 9},
    {"loss.action_weight": 100.0},
]
"""Tried after the base; two diverge, three have a shape of their own."""


class Tuned:
    """A sweep's search as Tune runs it, with one worker."""

    def __init__(
        self,
        lake: Path,
        runs: Path,
        engine: Engine,
        sizes: PackSizes,
        *,
        budget: TimeBudget | None = None,
        **request: Any,
    ) -> None:
        base = BASE.with_overrides(["model.hidden_size=12"])
        usual = {"trials": 8, "cohort_size": 3, "search": SEARCHED, "engine": engine, "halving": True}
        request = {**usual, **request}
        self.sweep = new_sweep(Lake(lake), runs, base, SweepRequest(**request))
        search = Search(search_settings(self.sweep), self.sweep.journal)
        for params in SETS:
            load_study(self.sweep.journal).enqueue_trial({**self.sweep.plan.space.start(base), **params})
        self.events: list[TrialEvent] = []
        self.told: set[int] = set()
        self.suggest = Suggest(
            search,
            workers=1,
            sizes=sizes,
            notify=self.events.append,
            tell_ended=self.told.update,
            budget=budget,
        )
        self.settings = TrialSettings(
            lake=lake,
            lake_manifest_hash=self.sweep.run.settings.lake_manifest_hash,
            base=base,
            cohort=tuple(self.sweep.plan.cohort),
            stack=engine == "stack",
        )

    def worker(self, config: dict[str, Any]) -> TrialPack:
        """An actor that begins with this pack."""
        pack = TrialPack.__new__(TrialPack)  # Tune's own set-up writes files
        pack.setup(config, self.settings, self.ended_among)
        return pack

    def ended_among(self, numbers: Sequence[int]) -> list[int]:
        """What the cluster's actor answers."""
        return [number for number in numbers if number in self.told]

    def run(self, *, dies_at: int | None = None) -> list[list[int]]:
        """Every pack to its end, on one worker that may die before a step of the first pack; the packs' numbers."""
        worker, packs = None, []
        while isinstance(config := self.suggest.suggest(f"pack-{len(packs)}"), dict):
            name = f"pack-{len(packs)}"
            packs.append([one["number"] for one in json.loads(config[TRIALS])])
            assert self.suggest.suggest("another") is None, "the only worker is busy"
            if worker is None or not worker.reset_config(config):
                worker = self.worker(config)
            step = 0
            while True:
                step += 1
                if dies_at == step:
                    worker, dies_at = self.worker(config), None
                result = worker.step()
                if result["done"] or self.suggest.on_epoch(name, result):
                    break
            self.suggest.on_trial_complete(name, result)
        assert config == Searcher.FINISHED
        return packs

    @property
    def records(self) -> list[TrialRecord]:
        """What the journal holds."""
        return read_trials(self.sweep.journal)


def assert_same_trial(one: TrialRecord, other: TrialRecord) -> None:
    """Parameters, ending, curve and attributes, within float sums."""
    assert (one.number, one.params, one.state) == (other.number, other.params, other.state)
    assert set(one.attributes) == set(other.attributes)
    said = [str(record.attributes.get("error")).partition(":")[0] for record in (one, other)]
    assert said[0] == said[1]  # which is followed by losses, infinite or no number
    assert one.attributes.get("epochs") == other.attributes.get("epochs")
    assert one.attributes.get("windows_trained") == other.attributes.get("windows_trained")
    assert one.values == (other.values and pytest.approx(other.values, abs=0.02))
    assert one.curve == pytest.approx(other.curve, abs=0.02)
    if other.values is not None:
        assert one.attributes["error_ratio"] == pytest.approx(other.attributes["error_ratio"], rel=1e-3)


@pytest.fixture(scope="module")
def stacked(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Eight trials in packs of four, some of which diverge or are stopped early."""
    tuned = Tuned(small_lake, tmp_path_factory.mktemp("stacked"), "stack", PackSizes(exactly=4))
    assert tuned.run() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    return tuned


def test_packs_record_what_trials_one_by_one_record(stacked: Tuned, small_lake: Path, tmp_path: Path) -> None:
    """The same values and endings, among them failed and pruned ones."""
    single = Tuned(small_lake, tmp_path, "single", PackSizes(), halving=False)
    assert single.run() == [[number] for number in range(8)]
    states = {record.state for record in stacked.records}
    assert states == {"complete", "pruned", "failed"}
    for one, other in zip(stacked.records, single.records, strict=True):
        if one.state != "pruned":
            assert_same_trial(one, other)
            continue
        assert one.params == other.params
        assert len(one.curve) < len(other.curve), "it left its pack before its end"
        assert dict(one.curve) == pytest.approx({epoch: other.curve[epoch] for epoch in one.curve}, abs=0.02)


def test_every_ending_is_told_once(stacked: Tuned) -> None:
    """Each trial runs, then ends as the journal says; workers were told of those whose pack went on."""
    ended = [(event.number, event.state) for event in stacked.events if event.state != "running"]
    assert sorted(ended) == [(record.number, record.state) for record in stacked.records]
    assert {record.number for record in stacked.records if record.state == "pruned"} & stacked.told


def test_a_pack_begun_again_after_a_workers_death_trains_only_what_had_not_ended(
    stacked: Tuned, small_lake: Path, tmp_path: Path
) -> None:
    """The same endings and values as without the death."""
    again = Tuned(small_lake, tmp_path, "stack", PackSizes(exactly=4))
    again.run(dies_at=5)
    assert {record.number for record in again.records[:4] if record.state in ("pruned", "failed")} & again.told
    for one, other in zip(again.records, stacked.records, strict=True):
        assert_same_trial(one, other)


def test_a_pack_is_suggested_again_until_its_workers_have_died_three_times(small_lake: Path, tmp_path: Path) -> None:
    """Tune gives up at once where a worker dies between two packs; what had ended stays as it was, the rest fails."""
    tuned = Tuned(small_lake, tmp_path, "stack", PackSizes(exactly=3))
    config = tuned.suggest.suggest("pack-0")
    assert isinstance(config, dict)
    tuned.suggest.on_epoch("pack-0", tuned.worker(config).step())
    for death in range(3):
        tuned.suggest.on_death(f"pack-{death}")
        tuned.suggest.on_trial_complete(f"pack-{death}", error=True)
        if death < 2:
            assert {record.state for record in tuned.records[:2]} == {"running"}
            assert tuned.suggest.suggest(f"pack-{death + 1}") == config
    errors = [record.attributes.get("error") for record in tuned.records[:3]]
    assert errors[1] == "its worker died 3 times"
    assert "SIMA3 diverged at epoch 1" in str(errors[2])


def test_the_starting_values_are_tried_again_by_a_resumed_sweep_if_their_workers_died(
    small_lake: Path, tmp_path: Path
) -> None:
    """There is nothing to compare with: the search stops, and what it left running is begun again under its values."""
    tuned = Tuned(small_lake, tmp_path, "single", PackSizes())
    for death in range(3):
        assert isinstance(tuned.suggest.suggest(f"pack-{death}"), dict)
        tuned.suggest.on_death(f"pack-{death}")
        tuned.suggest.on_trial_complete(f"pack-{death}", error=True)
    assert "trial 0, the configuration started from, died 3 times" in str(tuned.suggest.stopped_by)
    assert tuned.suggest.suggest("next") == Searcher.FINISHED
    resumed = Search(search_settings(tuned.sweep), tuned.sweep.journal)
    numbers = []
    while (suggestion := resumed.ask()) is not None:
        numbers.append(suggestion.number)
        if resumed.is_baseline(suggestion.number):
            assert suggestion.params == tuned.sweep.plan.space.start(tuned.sweep.config)
            break
    assert resumed.is_baseline(numbers[-1])


def test_a_search_ends_once_the_starting_values_cannot_be_trained(small_lake: Path, tmp_path: Path) -> None:
    """No later trial would have anything to beat; one that was abandoned is not held against them."""
    tuned = Tuned(small_lake, tmp_path, "single", PackSizes())
    assert isinstance(tuned.suggest.suggest("pack-0"), dict)
    report = {"error": "SIMA3 diverged at epoch 1", "finished": True, "seconds": 0.1}
    assert tuned.suggest.on_epoch("pack-0", {REPORTS: json.dumps({"0": report})})
    assert tuned.suggest.suggest("next") == Searcher.FINISHED
    assert Search(search_settings(tuned.sweep), tuned.sweep.journal).baseline_failed


@pytest.mark.parametrize("engine", ["single", "stack"])
@pytest.mark.parametrize("gone", [False, True])
def test_trouble_with_the_lake_ends_the_search_and_is_no_trials_fault(
    small_lake: Path, tmp_path: Path, engine: Engine, gone: bool
) -> None:
    """Changed or gone: no trial is told of it, and a resumed sweep begins those that ran again."""
    lake = shutil.copytree(small_lake, tmp_path / "lake")
    tuned = Tuned(lake, tmp_path / "runs", engine, PackSizes(exactly=2))
    config = tuned.suggest.suggest("pack-0")
    assert isinstance(config, dict)
    if gone:
        lake.rename(tmp_path / "elsewhere")
    else:
        manifest = lake / "manifest.json"
        manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    result = tuned.worker(config).step()
    assert result["done"]
    tuned.suggest.on_trial_complete("pack-0", result)
    assert ("there is no lake at" if gone else "was changed while the sweep went on") in str(tuned.suggest.stopped_by)
    assert tuned.suggest.suggest("next") == Searcher.FINISHED
    assert [record.state for record in tuned.records[:2]] == ["running", "running"]
    training = (tuned.sweep.plan.cohort[0], tuned.sweep.config)
    (told,) = {json.dumps(one) for one in evaluate(tuned.settings, [training, training])}
    assert json.loads(told)[TROUBLE]["message"] == str(tuned.suggest.stopped_by)


def test_a_trial_whose_assets_cannot_be_prepared_fails_alone(small_lake: Path, tmp_path: Path) -> None:
    """A lookback longer than any history; the other trial of the pack trains."""
    tuned = Tuned(small_lake, tmp_path, "stack", PackSizes(exactly=2))
    params = [{}, {"data.lookback": 390}]
    config = {TRIALS: json.dumps([{"number": number, "params": one} for number, one in enumerate(params)])}
    reports = json.loads(tuned.worker(config).step()[REPORTS])
    assert "windows" in reports["1"]["error"]
    assert reports["1"]["finished"]
    assert set(reports["0"]["assets"]) == set(tuned.sweep.plan.cohort)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        """As a clock is asked."""
        return self.seconds


@pytest.mark.parametrize("engine", ["single", "stack"])
def test_no_trial_begins_once_the_time_is_up(small_lake: Path, tmp_path: Path, engine: Engine) -> None:
    """What runs ends as it would have; the rest is left for a resumed sweep, which goes on with the same trials."""
    clock = Clock()
    sizes = PackSizes(exactly=2)
    tuned = Tuned(small_lake, tmp_path / "cut", engine, sizes, budget=TimeBudget(1.0, clock=clock), halving=False)
    config = tuned.suggest.suggest("pack-0")
    assert isinstance(config, dict)
    clock.seconds += 3599
    assert not tuned.suggest.out_of_time
    clock.seconds += 2
    worker, done = tuned.worker(config), False
    while not done:
        result = worker.step()
        done = bool(result["done"]) or tuned.suggest.on_epoch("pack-0", result)
    tuned.suggest.on_trial_complete("pack-0", result)
    assert tuned.suggest.suggest("pack-1") == Searcher.FINISHED
    assert tuned.suggest.out_of_time
    whole = Tuned(small_lake, tmp_path / "whole", engine, sizes, halving=False)
    whole.run()
    for one, other in zip(tuned.records[:2], whole.records[:2], strict=True):
        assert_same_trial(one, other)
    resumed = Search(search_settings(tuned.sweep), tuned.sweep.journal)
    asked = [resumed.ask() for _ in range(7)]
    assert [one.params if one else None for one in asked] == [*(one.params for one in whole.records[2:]), None]


def test_the_starting_values_are_tried_whatever_the_time(small_lake: Path, tmp_path: Path) -> None:
    """Alone, if it is up already; there would be nothing to compare with. Abandoned, they have not been tried."""
    tuned = Tuned(small_lake, tmp_path, "stack", PackSizes(exactly=4), budget=TimeBudget(0.0))
    config = tuned.suggest.suggest("pack-0")
    assert isinstance(config, dict)
    assert [one["number"] for one in json.loads(config[TRIALS])] == [0]
    resumed = Search(search_settings(tuned.sweep), tuned.sweep.journal)
    assert not resumed.baseline_begun
    late = Suggest(
        resumed,
        workers=1,
        sizes=PackSizes(),
        notify=tuned.events.append,
        tell_ended=None,
        budget=TimeBudget(0.0),
    )
    while not resumed.baseline_begun:
        assert isinstance(late.suggest(f"pack-{len(resumed.records())}"), dict)
        late._running.clear()
    assert late.suggest("next") == Searcher.FINISHED


def test_a_pack_whose_worker_died_is_begun_again_after_the_time_is_up(small_lake: Path, tmp_path: Path) -> None:
    """Its trials ran."""
    clock = Clock()
    tuned = Tuned(small_lake, tmp_path, "single", PackSizes(), budget=TimeBudget(1.0, clock=clock))
    config = tuned.suggest.suggest("pack-0")
    clock.seconds += 3601
    tuned.suggest.on_death("pack-0")
    tuned.suggest.on_trial_complete("pack-0", error=True)
    assert tuned.suggest.suggest("pack-1") == config
    assert not tuned.suggest.out_of_time


@given(trials=st.integers(1, 200), workers=st.integers(1, 8), most=st.integers(1, 60))
def test_automatic_packs_leave_something_to_learn_from(trials: int, workers: int, most: int) -> None:
    """Never more than fit, never more than a quarter of what is left to each worker, one at a time in the end."""
    left, sizes = trials, []
    while left:
        sizes.append(PackSizes(most=most).next(left, workers))
        assert 1 <= sizes[-1] <= most
        assert sizes[-1] == 1 or (sizes[-1] - 1) * 4 * workers < left
        left -= min(left, sizes[-1])
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_a_resumed_sweep_keeps_its_engine_and_gpus_unless_told_otherwise(small_lake: Path, tmp_path: Path) -> None:
    """It is part of the plan on disk; a plan written before there were engines is a single one."""
    from b3dist.distributed.fleet.options import FleetOptions, kept_options

    request = SweepRequest(cohort_size=2, engine="stack", trials_at_once=3, gpus_per_worker=0.25)
    sweep = new_sweep(Lake(small_lake), tmp_path, BASE, request)
    again = SweepFolder.open(tmp_path, sweep.run.run_id)
    assert (again.plan.engine, again.plan.trials_at_once) == ("stack", 3)
    assert kept_options(again.run) == {"engine": "stack", "gpus_per_worker": 0.25}
    assert engine_of(again, FleetOptions()) == "stack"
    assert engine_of(again, FleetOptions(engine="single", gpus_per_worker=1)) == "single"
    old = {name: value for name, value in sweep.plan.to_dict().items() if name not in ("engine", "trials_at_once")}
    assert type(sweep.plan).from_dict(old).engine == "single"
