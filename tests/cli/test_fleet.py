"""`b3dist fleet` and `b3dist runs`: what is refused before any cluster starts, and what they answer."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from b3dist.cli.fleet import advise_fallback, parse_workers
from b3dist.cli.fleet_progress import describe
from b3dist.data.lake import Lake
from b3dist.distributed.assignments import Assignments
from b3dist.distributed.fleet import drive as distributed_fleet
from b3dist.distributed.fleet.initial import InitialSource, warm_config
from b3dist.distributed.fleet.options import FleetOptions, kept_options
from b3dist.distributed.selection import new_run
from b3dist.distributed.summary import FleetProgress
from b3dist.distributed.sweep.folder import SweepPlan
from b3dist.errors import ConfigError
from b3dist.recipes import card
from b3dist.run_folder import RunFolder
from b3dist.tuning.space import search_space
from tests.cli.conftest import Outcome
from tests.distributed.runs import start_run
from tests.release.releases import train_run
from tests.training.pooled_runs import train_pooled_run

Command = Callable[..., Outcome]


@pytest.fixture
def run(small_lake: Path, tmp_path: Path) -> RunFolder:
    """A run that was made and not begun."""
    return start_run(small_lake, tmp_path / "runs")


def test_unknown_ticker_is_refused_with_the_nearest(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """No run is left behind, and Ray was not started."""
    outcome = b3dist("fleet", "--lake", small_lake, "--runs", tmp_path / "runs", "--tickers", "SIMA3,SIMB1", "--json")
    assert outcome.exit_code == 1
    assert "SIMB1" in outcome.answer["error"]
    assert "SIMA3" not in outcome.answer["error"]
    assert "SIMB11" in outcome.answer["hint"]
    assert not (tmp_path / "runs").exists()


def test_absent_lake_is_refused(b3dist: Command, tmp_path: Path) -> None:
    """One sentence, exit code 1."""
    outcome = b3dist("fleet", "--lake", tmp_path / "nowhere", "--runs", tmp_path / "runs", "--json")
    assert outcome.exit_code == 1
    assert "nowhere" in outcome.answer["error"]


def test_runs_folder_that_cannot_be_written_is_refused(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "runs").write_text("")
    outcome = b3dist("fleet", "--lake", small_lake, "--runs", tmp_path / "runs", "--json")
    assert outcome.exit_code == 1
    assert "cannot make a run" in outcome.answer["error"]


def test_resume_with_another_setting_is_refused(b3dist: Command, run: RunFolder) -> None:
    """The changed setting is named."""
    outcome = b3dist(
        "fleet", "--runs", run.path.parent, "--resume", run.run_id, "--set", "training.epochs=9",
        "--min-sessions", "300", "--json",
    )  # fmt: skip
    assert outcome.exit_code == 1
    assert "training.epochs was 2, is 9" in outcome.answer["error"]


def test_resume_with_other_tickers_is_refused(b3dist: Command, run: RunFolder) -> None:
    """A run's assets are decided when it is made."""
    outcome = b3dist("fleet", "--runs", run.path.parent, "--resume", run.run_id, "--tickers", "SIMA3", "--json")
    assert outcome.exit_code == 1
    assert "other tickers" in outcome.answer["error"]


def test_elastic_workers_with_a_share_of_a_gpu_are_refused(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Ray would count 1.0 // 0.05 as 19."""
    outcome = b3dist("fleet", "--lake", small_lake, "--workers", "1:4", "--gpus-per-worker", "0.05", "--json")
    assert outcome.exit_code == 1
    assert "whole GPUs" in outcome.answer["error"]


@pytest.mark.parametrize(("text", "expected"), [(None, None), ("4", 4), ("2:8", (2, 8))])
def test_workers_are_a_number_or_a_range(text: str | None, expected: object) -> None:
    """As the help says."""
    assert parse_workers(text) == expected


def test_unreadable_number_of_workers_is_refused() -> None:
    """With an example of what is meant."""
    with pytest.raises(ConfigError, match="many"):
        parse_workers("many")


def test_workers_out_of_order_are_named_as_they_were_given(b3dist: Command, small_lake: Path) -> None:
    """Not as a tuple of Python."""
    outcome = b3dist("fleet", "--lake", small_lake, "--workers", "2:1", "--json")
    assert "got 2:1" in outcome.answer["error"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--precision", "tf32"), "tf32 needs a GPU"),
        (("--set", "training.precision=tf32"), "tf32 needs a GPU"),
        (("--gpus-per-worker", "1"), "1 GPUs per worker asked for, but the cluster has 0"),
        (("--address", "nowhere.invalid:6379"), "cannot connect Ray to the cluster at nowhere.invalid:6379"),
    ],
)
@pytest.mark.usefixtures("no_gpu")
def test_what_this_machine_cannot_train_leaves_no_run(
    b3dist: Command, small_lake: Path, tmp_path: Path, words: Sequence[str], expected: str
) -> None:
    """Known before Ray starts."""
    outcome = b3dist("fleet", "--lake", small_lake, "--runs", tmp_path / "runs", *words, "--json")
    assert outcome.exit_code == 1
    assert expected in outcome.answer["error"]
    assert not (tmp_path / "runs").exists()


def test_run_goes_on_as_it_was_begun(
    b3dist: Command, small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine is kept and another one counts only if asked for; the command says again what no run keeps."""
    driven: list[FleetOptions] = []

    def interrupted(_run: RunFolder, options: FleetOptions, **_rest: object) -> None:
        driven.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(distributed_fleet, "drive_fleet", interrupted)
    runs = tmp_path / "runs"
    words = ["--workers", "2", "--engine", "stack", "--tracking-uri", "sqlite:///x y.db", "--no-mlflow"]
    outcome = b3dist("fleet", "--lake", small_lake, "--runs", runs, *words, "--json")
    _, _, command = outcome.answer["hint"].partition("resume with: b3dist ")
    (run_id,) = (path.name for path in runs.iterdir())
    plain = ["fleet", "--resume", run_id, "--runs", str(runs)]
    assert shlex.split(command) == [*plain, "--workers", "2", "--tracking-uri", "sqlite:///x y.db", "--no-mlflow"]
    b3dist(*shlex.split(command), "--json")
    assert b3dist(*plain, "--json").answer["hint"] == f"resume with: {shlex.join(['b3dist', *plain])}"
    other = b3dist(*plain, "--engine", "single", "--json").answer["hint"]
    assert other == f"resume with: {shlex.join(['b3dist', *plain, '--engine', 'single'])}"
    assert [options.engine for options in driven] == ["stack", "stack", "stack", "single"]
    assert driven[1] == driven[0]


@pytest.mark.usefixtures("no_gpu")
def test_run_on_gpus_is_resumed_on_gpus(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Even where there are none: it says so, and that CPUs must be asked for."""
    kept = FleetOptions(gpus_per_worker=0.5).to_kept()
    assert kept == {"engine": "stack", "gpus_per_worker": 0.5}
    run = new_run(Lake(small_lake), tmp_path / "runs", card(), options=kept)
    assert kept_options(run) == kept
    answer = b3dist("fleet", "--runs", tmp_path / "runs", "--resume", run.run_id, "--json").answer
    assert "0.5 GPUs per worker asked for" in answer["error"]
    assert answer["hint"] == "--gpus-per-worker 0 trains on CPUs"
    damaged = new_run(Lake(small_lake), tmp_path / "runs", card(), options={"engine": "x"})
    outcome = b3dist("fleet", "--runs", tmp_path / "runs", "--resume", damaged.run_id, "--json")
    assert "config.json is damaged" in outcome.answer["error"]


def test_runs_list_and_status_answer_json(b3dist: Command, run: RunFolder) -> None:
    """A run that was not begun is interrupted, with every asset waiting."""
    listed = b3dist("runs", "list", "--runs", run.path.parent, "--json").answer["runs"]
    assert [(entry["run_id"], entry["state"], entry["assets"]) for entry in listed] == [(run.run_id, "interrupted", 6)]
    status = b3dist("runs", "status", run.run_id, "--runs", run.path.parent, "--json").answer
    assert {entry["state"] for entry in status["entries"]} == {"waiting"}
    assert run.run_id in b3dist("runs", "status", run.run_id, "--runs", run.path.parent).stdout


def test_runs_prune_lists_what_it_deletes(b3dist: Command, run: RunFolder) -> None:
    """The id is in the answer, and the folder is gone."""
    answer = b3dist("runs", "prune", "--keep", "0", "--runs", run.path.parent, "--json").answer
    assert answer == {"deleted": [run.run_id], "kept": [], "running": [], "needed": []}
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("ledger.jsonl", "[1]\n"),
        ("ledger.jsonl", '{"event":"promoted","at":1}\n'),
        ("ledger.jsonl", '{"event":"leased","at":1}\n'),
        ("ledger.jsonl", '{"event":"leased","at":1,"ticker":"NONE3","attempt":1,"rank":0,"pid":1,"host":"x"}\n'),
    ],
)
def test_a_damaged_run_is_listed_as_such_and_never_pruned(
    b3dist: Command, run: RunFolder, small_lake: Path, name: str, content: str
) -> None:
    """One damaged run does not hide the others; `status` says what is wrong with it."""
    runs = run.path.parent
    other = start_run(small_lake, runs)
    (run.path / name).write_text(content, encoding="utf-8")
    listed = {
        entry["run_id"]: entry["state"] for entry in b3dist("runs", "list", "--runs", runs, "--json").answer["runs"]
    }
    assert listed == {run.run_id: "damaged", other.run_id: "interrupted"}
    assert b3dist("runs", "prune", "--keep", "0", "--runs", runs, "--json").answer["deleted"] == [other.run_id]
    assert run.path.exists()
    assert name in b3dist("runs", "status", run.run_id, "--runs", runs, "--json").answer["error"]


def test_skipped_assets_of_a_warm_start_are_served_by_its_pooled_run(
    small_lake: Path, tmp_path: Path, b3dist: Command
) -> None:
    """The command that is advised makes a release of all assets."""
    pooled_run = train_pooled_run(small_lake, tmp_path / "runs")
    source = InitialSource(kind="run", path=pooled_run.path)
    config = warm_config(source).with_overrides(["training.epochs=1"])
    fleet = train_run(small_lake, tmp_path / "runs", tickers=["SIMA3"], config=config, start=source)
    assert source.is_pooled
    assert not InitialSource(kind="run", path=fleet.path).is_pooled
    said, _, command = advise_fallback(fleet.run_id, source.path).partition(": b3dist ")
    assert said.startswith("what was skipped is served by the pooled model, or else the naive forecast")
    done = b3dist(*shlex.split(command), "--releases", tmp_path / "releases", "--json")
    assert (done.exit_code, done.answer["assets"]) == (0, 6)


def test_a_warm_start_answers_what_training_on_was_worth(small_lake: Path, tmp_path: Path, b3dist: Command) -> None:
    """Under `starts`, as summary.json has it, also where nothing is left to train; as a sentence for people."""
    source = InitialSource(kind="run", path=train_pooled_run(small_lake, tmp_path / "runs").path)
    config = warm_config(source).with_overrides(["training.epochs=1"])
    run = train_run(small_lake, tmp_path / "runs", config=config, start=source)
    words = ("fleet", "--resume", run.run_id, "--runs", tmp_path / "runs", "--no-mlflow")
    starts = b3dist(*words, "--json").answer["starts"]
    assert starts == json.loads((run.path / "summary.json").read_text())["starts"]
    assert (starts["source"], starts["pooled"], starts["compared"]) == (f"run {source.path.name}", 6, 6)
    said = b3dist(*words).stdout
    assert "test parts of 6 assets, start to kept: macro F1" in said
    assert "'pooled'" not in said


def test_help_says_what_a_warm_start_takes_along(b3dist: Command) -> None:
    """Not the card's 1000 sessions."""
    assert "250 of a pooled run" in " ".join(b3dist("fleet", "--help").stdout.split())


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"model": {"layers": 3}}},
        {"config": {"data": {"from_session": "2018-01-01T10:00:00"}}},
        {"config": "x"},
        {"config": None},
        {"tickers": None},
        {"options": []},
        {"lake": ...},
    ],
)
def test_a_run_whose_settings_were_damaged_hides_no_other(
    b3dist: Command, run: RunFolder, small_lake: Path, change: dict[str, Any]
) -> None:
    """Edited, or written by a newer version: listed as damaged, and `status` and `--resume` name the file."""
    runs, path = run.path.parent, run.path / "config.json"
    other = start_run(small_lake, runs)
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))
    listed = b3dist("runs", "list", "--runs", runs, "--json").answer["runs"]
    assert {entry["run_id"]: entry["state"] for entry in listed} == {
        run.run_id: "damaged",
        other.run_id: "interrupted",
    }
    for words in (("runs", "status", run.run_id), ("fleet", "--resume", run.run_id)):
        error = b3dist(*words, "--runs", runs, "--json").answer["error"]
        assert f"{run.run_id}/config.json is damaged" in error
    assert b3dist("runs", "prune", "--keep", "0", "--runs", runs, "--json").answer["deleted"] == [other.run_id]


@pytest.mark.parametrize(("name", "content"), [("ledger.jsonl", '{"event":"trial","at":1}\n'), ("summary.json", "[]")])
def test_a_damaged_sweep_hides_no_other_run(
    b3dist: Command, run: RunFolder, small_lake: Path, name: str, content: str
) -> None:
    """Its ledger or its summary holds something else."""
    runs = run.path.parent
    plan = SweepPlan(
        space=search_space(card()), cohort=["SIMA3"], held_out=[], excluded={}, trials=2, finalists=1, seeds=1,
        two_objectives=False, halving=False, per_asset=False,
    )  # fmt: skip
    sweep = new_run(Lake(small_lake), runs, card(), tickers=["SIMA3"], kind="sweep", options=plan.to_dict())
    assert [entry["state"] for entry in b3dist("runs", "list", "--runs", runs, "--json").answer["runs"]] == [
        "interrupted",
        "interrupted",
    ]
    (sweep.path / name).write_text(content, encoding="utf-8")
    listed = b3dist("runs", "list", "--runs", runs, "--json").answer["runs"]
    assert {entry["run_id"]: entry["state"] for entry in listed} == {
        run.run_id: "interrupted",
        sweep.run_id: "damaged",
    }
    assert "damaged" in b3dist("runs", "status", sweep.run_id, "--runs", runs, "--json").answer["error"]


def test_status_names_a_damaged_bundle(b3dist: Command, run: RunFolder) -> None:
    """Written by a worker that died before it said so, and changed since: the file lacks something."""
    ticker = run.settings.tickers[0]
    (run.assets / ticker).mkdir()
    assignments = Assignments(run.settings.tickers, ledger_path=run.ledger, assets_dir=run.assets)
    assignments.open(pid=1, host="here")
    assignments.close()
    for name, content in (("bundle.json", "{}"), ("metrics.json", "{}")):
        (run.assets / ticker / name).write_text(content, encoding="utf-8")
    answer = b3dist("runs", "status", run.run_id, "--runs", run.path.parent, "--json").answer
    assert f"assets/{ticker} is no complete bundle: it lacks 'splits'" in answer["error"]


def test_progress_says_what_is_done_and_what_is_left() -> None:
    """Done, failed, skipped, windows per second and time left."""
    progress = FleetProgress(
        total=10, trained=5, skipped=1, failed=1, in_flight=2, already_done=0, windows_per_s=21_500.0, left_s=75.0
    )
    assert describe(progress) == "5 trained, 1 failed, 1 skipped, 21,500 windows/s, 1:15 left"
