"""A sweep on a real Ray cluster: it survives SIGKILL and bad trials, and ends with a configuration a fleet can use."""

import json
import subprocess
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.ledger import read_ledger
from b3dist.distributed.run_list import list_runs, run_status
from b3dist.distributed.sweep.drive import search_settings
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.report import write_report
from b3dist.run_folder import is_driven
from b3dist.training.asset import load_asset
from b3dist.tuning.cohort import CohortTraining
from b3dist.tuning.journal import TrialRecord, read_trials
from tests.distributed.runs import PATIENCE_S, kill_while, start_driver, wait_for

pytestmark = pytest.mark.ray

OPTIONS = [
    *("--tickers", "SIMA3,SIMA4,SIMB11", "--trials", "8", "--workers", "2", "--seeds", "2", "--finalists", "2"),
    *("--min-sessions", "300", "--set", "training.epochs=3", "--set", "data.label_set=forward_return"),
    # Half of the logarithmic range diverges: those trials are recorded, and the sweep goes on.
    *("--search", "training.learning_rate=1e-3:1e20", "--no-halving"),
]


def start(lake: Path, runs: Path, *options: str) -> subprocess.Popen[str]:
    """`b3dist sweep` in a process of its own, on a private cluster of two logical cores."""
    words = ["sweep", "--lake", str(lake), "--runs", str(runs), "--json", *options]
    return start_driver(*words)


def settled(sweep: SweepFolder) -> list[TrialRecord]:
    """Trials that have ended by themselves."""
    if not sweep.journal.is_file() or not sweep.journal.stat().st_size:
        return []
    ended = ("complete", "pruned", "failed")
    return [one for one in read_trials(sweep.journal) if one.state in ended and not one.was_abandoned]


@pytest.fixture(scope="module")
def story(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sweep whose driver is killed with SIGKILL in the middle of the search, then resumed to its end."""
    runs = tmp_path_factory.mktemp("sweep") / "runs"
    first = start(small_lake, runs, *OPTIONS)
    sweep_id = wait_for(lambda: list_runs(runs) or None)[0].run_id
    sweep = SweepFolder.open(runs, sweep_id)

    def halfway() -> bool:
        return len(settled(sweep)) >= 2 and any(one.state == "running" for one in read_trials(sweep.journal))

    kill_while(first, halfway)
    before = settled(sweep)
    listed = list_runs(runs)[0]
    second = start(small_lake, runs, "--resume", sweep_id)
    stdout, stderr = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, stderr
    return {
        "sweep": sweep,
        "runs": runs,
        "lake": small_lake,
        "before": before,
        "listed": listed,
        "answer": json.loads(stdout),
        "stderr": stderr,
    }


@pytest.mark.timeout(600)
def test_a_killed_sweep_is_resumed_and_nothing_is_done_twice(story: dict[str, Any]) -> None:
    """Ended trials stay as they were, what ran is marked failed and begun again, eight trials are settled."""
    sweep: SweepFolder = story["sweep"]
    assert (story["listed"].kind, story["listed"].state) == ("sweep", "interrupted")
    records = read_trials(sweep.journal)
    assert records[:1][0].params == sweep.plan.space.start(sweep.config)
    known = {one.number: one for one in records}
    assert [known[one.number] for one in story["before"]] == story["before"]
    abandoned = [one for one in records if one.was_abandoned]
    assert abandoned
    again = {one.attributes.get("again_of"): one for one in records}
    whole = [one for one in abandoned if set(one.params) == set(sweep.plan.space.names)]  # else killed in a suggestion
    assert all(again[one.number].params == one.params for one in whole)
    assert all(set(one.params) == set(sweep.plan.space.names) for one in records if not one.was_abandoned)
    assert len(settled(sweep)) == story["answer"]["trials"] == 8
    assert "running" not in {one.state for one in records}
    assert not is_driven(sweep.run.path)
    assert not (sweep.run.path / "ray").exists()


def test_bad_trials_are_recorded_with_their_reason(story: dict[str, Any]) -> None:
    """A learning rate of 1e10 diverges; the sweep ends all the same."""
    failed = [one for one in settled(story["sweep"]) if one.state == "failed"]
    assert failed
    assert all("diverged" in one.attributes["error"] for one in failed)
    assert story["answer"]["failed"] == len(failed)


def test_a_trial_on_ray_is_the_cohort_trained_in_a_loop(story: dict[str, Any]) -> None:
    """The value of the last complete trial, bit for bit."""
    sweep: SweepFolder = story["sweep"]
    record = [one for one in settled(sweep) if one.state == "complete"][-1]
    config = sweep.plan.space.apply(sweep.config, record.params)
    lake = Lake(story["lake"])
    training = CohortTraining([load_asset(lake, ticker, config) for ticker in sweep.plan.cohort], config)
    while not training.finished:
        report = training.advance()
    assert record.values == (report.score.macro_f1,)


def test_the_verdict_is_plain_and_best_yaml_is_a_whole_configuration(story: dict[str, Any]) -> None:
    """Three held-out assets are too few to leave the defaults: best.yaml holds what the sweep started from."""
    sweep: SweepFolder = story["sweep"]
    answer = story["answer"]
    assert answer["verdict"].endswith("keep the defaults")
    assert answer["best"]["adopted"] is False
    assert answer["best"]["params"] == sweep.plan.space.start(sweep.config)
    assert answer["best"]["value"] == read_trials(sweep.journal)[0].values[0] or story["before"][0].number != 0  # type: ignore[index]
    content = yaml.safe_load(sweep.best.read_text(encoding="utf-8"))
    assert Config.from_dict(content) == sweep.config
    assert set(sweep.plan.held_out).isdisjoint(sweep.plan.cohort)


def test_finalists_are_trained_under_seeds_of_their_own(story: dict[str, Any]) -> None:
    """Two seeds per finalist and asset, none of them the search's; each training is in the ledger once."""
    sweep: SweepFolder = story["sweep"]
    evaluated = [event for event in read_ledger(sweep.run.ledger) if event["event"] == "evaluated"]
    keys = [(event["params"], event["seed"], event["ticker"]) for event in evaluated]
    assert len(keys) == len(set(keys))
    assert len({event["seed"] for event in evaluated}) == 2
    assert sweep.config.seed not in {event["seed"] for event in evaluated}


def test_optuna_reads_the_journal_and_the_runs_verbs_know_the_sweep(story: dict[str, Any]) -> None:
    """So do its plots; `runs status` has a line per trial."""
    sweep: SweepFolder = story["sweep"]
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(sweep.journal)))
    study = optuna.load_study(study_name=None, storage=storage)
    assert len(study.trials) == len(read_trials(sweep.journal))
    assert optuna.visualization.plot_optimization_history(study).data
    status = run_status(story["runs"], sweep.run.run_id)
    assert (status["kind"], status["state"], status["trials"]) == ("sweep", "finished", 8)
    assert {entry["trial"]: entry["state"] for entry in status["entries"]} == {
        one.number: "abandoned" if one.was_abandoned else one.state for one in read_trials(sweep.journal)
    }


def test_mlflow_has_a_child_per_trial(story: dict[str, Any]) -> None:
    """Those of the killed driver among them; the parent holds the sweep's totals."""
    from mlflow.tracking import MlflowClient

    sweep: SweepFolder = story["sweep"]
    client = MlflowClient(tracking_uri=f"sqlite:///{story['runs'].parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("b3dist")
    parents = client.search_runs([experiment.experiment_id], "tags.`b3dist.kind` = 'sweep'")
    assert [(one.info.run_name, one.info.status) for one in parents] == [(sweep.run.run_id, "FINISHED")]
    children = client.search_runs([experiment.experiment_id], "tags.`b3dist.kind` = 'trial'")
    records = {f"trial-{one.number:03}": one for one in read_trials(sweep.journal)}
    assert {one.info.run_name for one in children} == set(records)
    for child in children:
        record = records[child.info.run_name]
        assert child.info.status == ("FAILED" if record.state == "failed" else "FINISHED")
        told = {name: float(child.data.params[name]) for name in record.params}  # none: killed in a suggestion
        assert told == pytest.approx(record.params)


def test_the_report_shows_the_sweep(story: dict[str, Any]) -> None:
    """Every trial, the verdict and the charts, in one file without anything fetched."""
    sweep: SweepFolder = story["sweep"]
    page = write_report(story["runs"], sweep.run.run_id).read_text(encoding="utf-8")
    for record in read_trials(sweep.journal):
        assert f'data-trial="{record.number}"' in page
    assert "Keep the defaults" in page
    assert "Parallel coordinates" in page
    assert 'id="figure-0"' in page


def test_search_settings_follow_the_plan(story: dict[str, Any]) -> None:
    """A resumed search asks for what was asked for at first."""
    settings = search_settings(story["sweep"])
    assert (settings.budget, settings.epochs, settings.halving) == (8, 3, False)
    assert "training.learning_rate" in settings.space.names
