"""`b3dist sweep`: what is refused before any cluster starts, and what its progress says."""

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from b3dist.cli.sweep import notices
from b3dist.cli.sweep_progress import _within_budget, counts, describe, stage_in_words
from b3dist.data.lake import Lake
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.outcome import Outcome, write_outcome
from b3dist.distributed.sweep.progress import SweepProgress
from b3dist.tuning.journal import read_trials
from b3dist.tuning.space import ALWAYS, ON_REQUEST
from b3dist.tuning.verdict import Verdict
from tests.cli.conftest import Outcome as Told
from tests.distributed.runs import start_run
from tests.distributed.sweeps import BASE, concluded, lengthened, searched

Command = Callable[..., Told]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tickers", "SIMA3,SIMB1"], "SIMB1"),
        (["--search", "training.learnig_rate"], "training.learning_rate"),
        (["--search", "data.volatility_multiple"], "no effect"),
        (["--set", "loss.gamma=7"], "--search loss.gamma=LOW:HIGH"),
        (["--search", "data.lookback=0.5:64"], "whole number"),
        (["--search", "loss.gamma=1:4", "--search", "loss.gamma=2:4"], "twice"),
        (["--per-asset", "--two-objectives"], "macro F1 alone"),
        (["--trials", "0"], "trials must be at least 1"),
        (["--finalists", "1000000000"], "finalists must be at most 100"),
        (["--seeds", "1000000000"], "seeds must be at most 100"),
        (["--workers", "0"], "at least 1"),
        (["--engine", "stack", "--trials-at-once", "0"], "trials at once must be at least 1"),
        (["--trials-at-once", "2"], "--engine stack"),
        (["--max-hours", "-1"], "hours to search must be between 0 and 8760, got -1"),
        (["--max-hours", "nan"], "got nan"),
        (["--halving", "--per-asset"], "never stopped early with --per-asset or --two-objectives"),
        ([], "no asset to search on"),
    ],
)
def test_wrong_requests_are_refused_before_ray_starts(
    b3dist: Command, small_lake: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    """Exit code 1, one sentence, no run left behind."""
    outcome = b3dist("sweep", "--lake", small_lake, "--runs", tmp_path / "runs", *options, "--json")
    assert outcome.exit_code == 1
    assert said in f"{outcome.answer['error']} {outcome.answer['hint']}"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "training.precision=tf32"], "tf32 needs a GPU"),
        (["--gpus-per-worker", "1"], "1 GPUs per worker asked for, but the cluster has 0"),
    ],
)
@pytest.mark.usefixtures("no_gpu")
def test_what_this_machine_cannot_train_leaves_no_sweep(
    b3dist: Command, small_lake: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    """Known before the lake is read; of a resumed sweep before Ray starts, and it stays as it was."""
    usable = ["--min-sessions", "300", "--set", "data.label_set=forward_return"]
    outcome = b3dist("sweep", "--lake", small_lake, "--runs", tmp_path / "new", *usable, *options, "--json")
    assert outcome.exit_code == 1
    assert said in outcome.answer["error"]
    assert not (tmp_path / "new").exists()
    if "--set" not in options:
        sweep = searched(small_lake, tmp_path)
        outcome = b3dist("sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, *options, "--json")
        assert said in outcome.answer["error"]
        assert not (sweep.run.path / "summary.json").exists()


def test_an_interrupted_sweep_says_how_to_go_on_as_it_was_begun(
    b3dist: Command, small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the options that its folder does not keep."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("b3dist.distributed.sweep.drive.drive_sweep", interrupted)
    sweep = searched(small_lake, tmp_path)
    options = ["--max-hours", "2.5", "--workers", "2", "--engine", "stack"]
    words = [*options, "--tracking-uri", "sqlite:///x y.db", "--no-mlflow"]
    outcome = b3dist("sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, *words, "--json")
    _, _, command = outcome.answer["hint"].partition("resume with: b3dist ")
    assert shlex.split(command)[-len(words) :] == words
    again = b3dist(*shlex.split(command), "--json")
    assert again.answer["hint"] == outcome.answer["hint"]


def test_a_resumed_sweep_keeps_its_settings(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Options that would change it are named."""
    sweep = searched(small_lake, tmp_path)
    changes = ["--seeds", "5", "--set", "training.epochs=2"]
    outcome = b3dist("sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, *changes, "--json")
    assert outcome.exit_code == 1
    assert "overrides, seeds" in outcome.answer["error"]


def test_a_fleet_cannot_be_resumed_as_a_sweep(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """The error says what it is."""
    run = start_run(small_lake, tmp_path)
    outcome = b3dist("sweep", "--runs", tmp_path, "--resume", run.run_id, "--json")
    assert outcome.exit_code == 1
    assert f"run {run.run_id} is of kind fleet, not a sweep" in outcome.answer["error"]
    assert outcome.answer["hint"] == f"b3dist fleet --resume {run.run_id} --runs {tmp_path}"
    sweep = searched(small_lake, tmp_path)
    for verb in ("fleet", "pooled"):
        other = b3dist(verb, "--runs", tmp_path, "--resume", sweep.run.run_id, "--json")
        assert "is of kind sweep" in other.answer["error"]
        assert other.answer["hint"] == f"b3dist sweep --resume {sweep.run.run_id} --runs {tmp_path}"


def test_a_sweep_has_no_models_but_a_configuration(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Where models are asked for, the error says how to train what was found; before it is found, also that."""
    sweep = searched(small_lake, tmp_path)
    command = f"b3dist fleet --recipe-file {sweep.best}"
    for hint in (f"{command} once the sweep has finished", command):
        for words in (
            ("fleet", "--lake", small_lake, "--init-from", sweep.run.run_id),
            ("release", "create", sweep.run.run_id),
        ):
            outcome = b3dist(*words, "--runs", tmp_path, "--json")
            assert outcome.exit_code == 1
            assert outcome.answer["hint"] == f"a sweep keeps no models; train what it found with {hint}"
        concluded(sweep, adopted=True)


@pytest.mark.parametrize("options", [[], ["--gpus-per-worker", "1"]])
def test_a_finished_sweep_answers_without_starting_anything(
    b3dist: Command, small_lake: Path, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its verdict stays, byte by byte, whatever it is resumed with."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=True)
    monkeypatch.setattr("b3dist.distributed.sweep.drive.connected", None)  # calling it is an error
    before = {path.name: path.read_bytes() for path in sweep.run.path.iterdir() if path.is_file()}
    outcome = b3dist("sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, *options, "--json")
    assert outcome.exit_code == 0
    assert outcome.answer["best"]["adopted"] is True
    assert outcome.answer["verdict"] == json.loads(before["summary.json"])["verdict"]["reason"]
    after = {path.name: path.read_bytes() for path in sweep.run.path.iterdir() if path.is_file()}
    assert {name: content for name, content in after.items() if name != "driver.lock"} == before


def test_assets_left_out_and_too_few_held_out_are_said_at_the_start(
    b3dist: Command, small_lake: Path, tmp_path: Path
) -> None:
    """On stderr; the answer names who was left out."""
    sessions = Lake(small_lake).tickers().set_index("ticker")["num_sessions"]
    shortest = str(sessions.idxmin())
    base = BASE.replace_setting("data.min_sessions", int(sessions.min()) + 1)
    sweep = concluded(searched(small_lake, tmp_path, base=base, tickers=list(sessions.index)[:4]), adopted=False)
    assert list(sweep.plan.excluded) == [shortest]
    outcome = b3dist("sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, "--json")
    assert f"left out {shortest}: {shortest} has" in outcome.stderr
    assert f"only {len(sweep.plan.held_out)} assets are held out, at least 6 are needed" in outcome.stderr
    assert list(outcome.answer["excluded"]) == [shortest]
    enough = dataclasses.replace(sweep.plan, held_out=list("ABCDEF"), excluded={})
    assert notices(enough) == []


def test_a_sweep_without_anything_to_compare_with_has_failed(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Exit code 1 and the reason, also when it is asked again."""
    sweep = searched(small_lake, tmp_path)
    outcome = Outcome(winner=None, verdict=Verdict(adopted=False, reason="trial 0 failed (diverged): nothing to beat"))
    summary = write_outcome(sweep, read_trials(sweep.journal), outcome, state="finished", started=0.0)
    sweep.run.write_summary({**summary, "engine": "single", "tracking": None})
    for _ in range(2):
        told = b3dist("sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, "--json")
        assert told.exit_code == 1
        assert "trial 0 failed (diverged): nothing to beat" in told.answer["error"]


def test_runs_status_shows_a_running_sweep(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Its phase, the best trial beside trial 0, each trial's settings, and why one failed."""
    sweep = searched(small_lake, tmp_path)
    with sweep.run.driven():
        shown = b3dist("runs", "status", "--runs", tmp_path).stdout
    assert "running, finalists (phase 2 of 3) 0/36, 9 trials: 8 complete, 1 failed" in shown
    assert "best macro F1 of the search so far: trial" in shown
    assert "trial 3 failed: SIMA3 diverged at epoch 1 <b>" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["0", "start", "complete", "0.4000", "1.1000", "1", "3", "20", "50", "0.4"] in rows
    assert sum("abandoned" in row for row in rows) == 1


def test_a_finished_sweep_shows_its_winner_and_verdict(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """`runs list` counts trials, not assets, and says how it ended."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=True)
    shown = b3dist("runs", "status", "--runs", tmp_path).stdout
    assert ": adopt the winner" in shown
    assert "so far" not in shown
    assert "winner" in shown
    listed = " ".join(b3dist("runs", "list", "--runs", tmp_path).stdout.split())
    assert "9 trials: 8 complete, 1 failed; adopted trial" in listed
    concluded(sweep, adopted=False)
    assert "kept the defaults" in " ".join(b3dist("runs", "list", "--runs", tmp_path).stdout.split())


def test_progress_says_how_trials_ended_and_what_there_is_to_beat() -> None:
    """Then how many trainings of the later stages are done."""
    moment = {
        "phases": ("search", "finalists", "held-out"),
        "trials": 40, "complete": 10, "pruned": 5, "failed": 1, "best": 0.41, "baseline": 0.4,
    }  # fmt: skip
    progress = SweepProgress(stage="search", done=0, total=0, **moment)  # type: ignore[arg-type]
    assert counts(progress) == (16, 40)
    assert stage_in_words(progress) == "search (1 of 3)"
    said = "10 complete, 5 stopped early, 1 failed, best macro F1 0.4100, trial 0: 0.4000"
    assert describe(progress) == said
    assert describe(progress, left_s=65) == f"{said}, 1:05 left of this phase"
    hurried = dataclasses.replace(progress, budget_left_s=30.0)
    assert [_within_budget(one, 65.0) for one in (progress, hurried)] == [65.0, 30.0]
    later = SweepProgress(stage="held-out", done=3, total=120, **moment)  # type: ignore[arg-type]
    assert counts(later) == (3, 120)
    assert stage_in_words(later) == "held-out (3 of 3)"
    assert _within_budget(dataclasses.replace(later, budget_left_s=0.0), 65.0) == 65.0
    assert describe(later, left_s=5) == "trainings, 0:05 left of this phase"


def test_what_can_be_searched_is_in_the_help_and_in_the_error(
    b3dist: Command, small_lake: Path, tmp_path: Path
) -> None:
    """Every setting, with its usual range."""
    told = "".join(b3dist("sweep", "--help").stdout.split())
    refused = b3dist("sweep", "--lake", small_lake, "--runs", tmp_path, "--search", "model.size", "--json").answer
    for one in (*ALWAYS, *ON_REQUEST):
        assert f"{one.name}={one.low:g}:{one.high:g}" in told
        assert f"{one.name}={one.low:g}:{one.high:g}" in refused["hint"]


def test_cautions_come_before_the_waiting_and_again_with_the_answer(
    b3dist: Command, small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new sweep knows how many epochs its recipe has; it is interrupted before it costs anything."""
    sweep = concluded(searched(small_lake, tmp_path, halving=True), adopted=False)
    outcome = b3dist("sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, "--json")
    assert "two in three are stopped" in outcome.stderr
    assert any("two in three are stopped" in one for one in outcome.answer["warnings"])

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("b3dist.distributed.sweep.drive.drive_sweep", interrupted)
    asked = ["--lake", small_lake, "--runs", tmp_path, "--min-sessions", "300", "--set", "training.epochs=4"]
    assert "every trial trains 4 of the recipe's 50 epochs" in b3dist("sweep", *asked).stderr


def test_a_resumed_sweep_may_only_grow(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Fewer trials than planned are refused, and the verdict stays; as many are no change."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=True)
    resumed = ["sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, "--json"]
    refused = b3dist(*resumed, "--trials", "8")
    assert refused.exit_code == 1
    assert "has 9 trials planned, got --trials 8" in refused.answer["error"]
    assert b3dist(*resumed, "--trials", "9").answer["best"]["adopted"] is True


@pytest.mark.usefixtures("no_gpu")
def test_a_sweep_that_cannot_grow_keeps_its_verdict(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Without the GPU asked for, or with a journal that has lost trials, it would be withdrawn for nothing."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=True)
    verdict = (sweep.run.path / "summary.json").read_bytes()
    grown = ["sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, "--trials", "12", "--json"]
    assert "1 GPUs per worker asked for" in b3dist(*grown, "--gpus-per-worker", "1").answer["error"]
    sweep.journal.unlink()
    assert "journal.log is gone or empty" in b3dist(*grown).answer["error"]
    assert (sweep.run.path / "summary.json").read_bytes() == verdict
    assert SweepFolder.open(tmp_path, sweep.run.run_id).plan.trials == 9


def test_a_search_out_of_time_says_so_and_goes_on_when_resumed(
    b3dist: Command, small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its verdict stands as long as no further trial may begin; `runs`, the answer and the page count the trials."""
    sweep = concluded(lengthened(searched(small_lake, tmp_path)), adopted=True, out_of_time=True)
    resumed = ["sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, "--json"]
    said = "stopped by --max-hours after 9 of 12 trials"
    told = b3dist(*resumed, "--max-hours", "0")
    assert (told.exit_code, told.answer["stopped"], told.answer["trials"]) == (0, said, 9)
    assert "no trial begins" not in told.stderr
    shown = b3dist(*resumed[:-1], "--max-hours", "0").stdout
    assert f"{said}; the others: {sweep.run.how_to_resume()}" in shown
    for words in (["list"], ["status", sweep.run.run_id]):
        assert said in " ".join(b3dist("runs", *words, "--runs", tmp_path).stdout.split())
    b3dist("report", sweep.run.run_id, "--runs", tmp_path)
    assert f"The search was {said}" in (sweep.run.path / "report.html").read_text(encoding="utf-8")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("b3dist.distributed.sweep.drive.connected", interrupted)
    again = b3dist(*resumed, "--max-hours", "2", "--no-mlflow")
    assert f"was {said}: it goes on, then the verdict comes anew" in again.stderr
    assert "no trial begins after 2 hours" in again.stderr
    assert "up to 54 trainings of one asset, as long as 18 whole trials" in again.stderr
    assert "--max-hours 2" in again.answer["hint"]
    assert json.loads((sweep.run.path / "summary.json").read_text(encoding="utf-8"))["state"] == "interrupted"


@pytest.mark.usefixtures("no_gpu")
def test_a_sweep_begun_on_gpus_is_resumed_on_gpus(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Without saying so again; on this machine that fails, and it can be told otherwise."""
    sweep = searched(small_lake, tmp_path, engine="stack", gpus_per_worker=1.0)
    resumed = ["sweep", "--runs", tmp_path, "--resume", sweep.run.run_id, "--json"]
    outcome = b3dist(*resumed)
    assert outcome.exit_code == 1
    assert "1 GPUs per worker asked for, but the cluster has 0" in outcome.answer["error"]
    assert "--gpus-per-worker 0" in outcome.answer["hint"]
    sweep.journal.unlink()
    assert "journal.log is gone or empty" in b3dist(*resumed, "--gpus-per-worker", "0").answer["error"]
