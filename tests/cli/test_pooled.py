"""`b3dist pooled` and `fleet --init-from`: what is refused before any cluster starts, and what is shown."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from b3dist.cli.pooled import _answer, _describe, _LinePrinter, _parse_storage, _restarts
from b3dist.distributed.pooled import drive as distributed_pooled
from b3dist.distributed.pooled.drive import PooledOptions
from b3dist.distributed.pooled.folder import finished_summary
from b3dist.run_folder import RunFolder, replace_json
from tests.cli.conftest import Outcome
from tests.distributed.checkpoints import keep
from tests.distributed.runs import start_run
from tests.training.pooled_runs import train_pooled_run

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def pooled_run(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished pooled run."""
    return train_pooled_run(small_lake, tmp_path_factory.mktemp("pooled") / "runs")


def test_pooled_run_is_not_resumed_as_a_fleet_nor_the_reverse(
    b3dist: Command, small_lake: Path, tmp_path: Path, pooled_run: RunFolder
) -> None:
    """Each is told which verb goes on with it."""
    outcome = b3dist("fleet", "--runs", pooled_run.path.parent, "--resume", pooled_run.run_id, "--json")
    assert outcome.exit_code == 1
    assert "kind pooled" in outcome.answer["error"]
    assert outcome.answer["hint"] == f"b3dist pooled --resume {pooled_run.run_id} --runs {pooled_run.path.parent}"
    fleet = start_run(small_lake, tmp_path / "runs")
    outcome = b3dist("pooled", "--runs", tmp_path / "runs", "--resume", fleet.run_id, "--json")
    assert outcome.exit_code == 1
    assert "kind fleet" in outcome.answer["error"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--set", "training.precision=tf32"), "fp32 only, got training.precision tf32"),
        (("--set", "training.precision=bf16"), "fp32 only, got training.precision bf16"),
        (("--gpus-per-worker", "64"), "64 GPUs per worker asked for"),
        (("--storage", ""), "names no folder"),
        (("--storage", " "), "names no folder"),
        (("--workers", "9"), "9 workers cannot share a step of 4 micro-batches (512 windows, 128 each)"),
        (("--set", "data.test_from=2018-06-01"), "got None and 2018-06-01"),
        (("--set", "data.validation_from=2018-06-01", "--set", "data.test_from=2018-03-01"), "a calendar cut needs"),
    ],
)
def test_what_no_worker_could_train_is_refused_at_once(
    b3dist: Command, small_lake: Path, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    """Before a run's folder is made, and before Ray is started for it."""
    outcome = b3dist("pooled", "--lake", small_lake, "--runs", tmp_path / "runs", *words, "--json")
    assert outcome.exit_code == 1
    assert expected in outcome.answer["error"]
    assert not (tmp_path / "runs").exists()
    assert "starting Ray" not in outcome.stderr


def test_interrupted_run_says_how_it_goes_on_as_it_was_begun(
    b3dist: Command, small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command repeats what a run does not keep, and can be run."""
    driven: list[PooledOptions] = []

    def interrupted(_run: RunFolder, options: PooledOptions, **_rest: object) -> None:
        driven.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(distributed_pooled, "drive_pooled", interrupted)
    words = ["--workers", "2", "--tracking-uri", "sqlite:///x y.db", "--no-mlflow"]
    outcome = b3dist("pooled", "--lake", small_lake, "--runs", tmp_path / "runs", *words, "--json")
    _, _, command = outcome.answer["hint"].partition("resume with: b3dist ")
    assert shlex.split(command)[-5:] == words
    b3dist(*shlex.split(command), "--json")
    assert driven[1] == driven[0]


@pytest.fixture
def interrupted(b3dist: Command, small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The words that resume a run which was interrupted before it trained; its checkpoints are in tmp_path / "old"."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(distributed_pooled, "drive_pooled", interrupt)
    runs = tmp_path / "runs"
    b3dist("pooled", "--lake", small_lake, "--runs", runs, "--storage", tmp_path / "old", "--json")
    (run,) = runs.iterdir()
    keep(tmp_path / "old", epochs=7, run_id=run.name)
    return ("pooled", "--runs", str(runs), "--resume", run.name, "--json")


def test_a_run_is_moved_to_another_storage(b3dist: Command, tmp_path: Path, interrupted: tuple[str, ...]) -> None:
    """It says from which epoch it goes on there, and remembers the place; naming it once more changes nothing."""
    run_id = interrupted[-2]
    moved = b3dist(*interrupted, "--storage", tmp_path / "new").stderr
    assert f"run {run_id} goes on from epoch 8, with its checkpoints at {tmp_path / 'new'}" in moved
    shutil.rmtree(tmp_path / "old")
    for again in (b3dist(*interrupted), b3dist(*interrupted, "--storage", tmp_path / "new")):
        assert "checkpoints" not in again.stderr
    shutil.rmtree(tmp_path / "new")
    lost = b3dist(*interrupted, "--storage", tmp_path / "third").stderr
    assert f"there are no checkpoints of run {run_id} at {tmp_path / 'new'}; it begins anew at epoch 1" in lost


def test_what_is_lost_with_a_storage_is_said(b3dist: Command, tmp_path: Path, interrupted: tuple[str, ...]) -> None:
    """Where it cannot be used at all, with the command that goes on elsewhere; where it is empty, the epoch."""
    shutil.rmtree(tmp_path / "old")
    (tmp_path / "old").touch()
    refused = b3dist(*interrupted).answer
    assert "Not a directory" in refused["error"] or "File exists" in refused["error"]
    elsewhere = f"b3dist pooled --resume {interrupted[-2]} --runs {tmp_path / 'runs'} --storage FOLDER"
    assert elsewhere in refused["hint"]
    begun = b3dist(*interrupted, "--storage", tmp_path / "new").stderr
    assert "it begins anew at epoch 1, to the same numbers" in begun
    epoch = dict.fromkeys(
        ("num_train_windows", "workers", "seconds", "stepping_s", "all_reduce_s", "val_loss", "pid"), 1
    )
    replace_json(tmp_path / "runs" / interrupted[-2] / "progress.json", {"epochs": [epoch]})
    told = b3dist(*interrupted).stderr
    assert f"there are no checkpoints of run {interrupted[-2]} at {tmp_path / 'new'}: it begins anew" in told


def test_a_folder_named_by_its_address_is_the_same_folder(tmp_path: Path) -> None:
    """Else a run told to keep its checkpoints where they are would take that for a move, and delete those it left."""
    folder = tmp_path / "run" / "ray ä"
    assert _parse_storage(folder.as_uri()) == _parse_storage(f"{folder}/") == str(folder)
    assert _parse_storage("s3://bucket/a%20b") == "s3://bucket/a%20b"


def test_restart_is_said_instead_of_counting_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Epochs since the last checkpoint are trained again, by another group of workers."""
    epochs = [{"pid": pid, "val_loss": 1.0, "num_train_windows": 10, "seconds": 1.0} for pid in (1, 1, 1, 2, 2)]
    printer = _LinePrinter(9)
    for shown in (epochs[:3], epochs[:2] + epochs[3:4], epochs[:2] + epochs[3:]):
        printer.show(shown)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" of")[0] for line in lines] == [
        "pooled: epoch 3",
        "pooled: restarted from epoch 3",
        "pooled: epoch 3",
    ]
    assert _restarts(epochs) == "restarted from epoch 4, "
    assert _restarts(epochs[:3]) == ""


def test_resume_takes_no_other_settings(b3dist: Command, pooled_run: RunFolder) -> None:
    """What a run trains was decided when it was made."""
    words = ("--runs", pooled_run.path.parent, "--resume", pooled_run.run_id)
    outcome = b3dist("pooled", *words, "--set", "training.epochs=9", "--json")
    assert outcome.exit_code == 1
    assert "own settings" in outcome.answer["error"]
    outcome = b3dist("fleet", *words, "--init-from", pooled_run.run_id, "--json")
    assert outcome.exit_code == 1
    assert "own initial models" in outcome.answer["error"]


def test_unknown_initial_model_is_refused(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """No run is left behind."""
    outcome = b3dist("fleet", "--lake", small_lake, "--runs", tmp_path / "runs", "--init-from", "X", "--json")
    assert outcome.exit_code == 1
    assert "'X'" in outcome.answer["error"]
    assert not (tmp_path / "runs").exists()


def test_initial_model_for_another_question_is_refused(
    b3dist: Command, small_lake: Path, pooled_run: RunFolder
) -> None:
    """Another feature set than the pooled model's is said before any asset fails on it."""
    before = sorted(pooled_run.path.parent.iterdir())
    outcome = b3dist(
        "fleet", "--lake", small_lake, "--runs", pooled_run.path.parent, "--init-from", pooled_run.run_id,
        "--recipe", "card", "--json",
    )  # fmt: skip
    assert outcome.exit_code == 1
    assert "data.feature_set was 'v2', is 'v1'" in outcome.answer["error"]
    assert sorted(pooled_run.path.parent.iterdir()) == before


def test_finished_run_without_metrics_is_no_answer(b3dist: Command, pooled_run: RunFolder, tmp_path: Path) -> None:
    """Resumed, a whole one answers at once; one that lost its metrics is refused in a sentence."""
    shutil.copytree(pooled_run.path, tmp_path / "runs" / pooled_run.run_id)
    words = ("pooled", "--runs", tmp_path / "runs", "--resume", pooled_run.run_id, "--no-mlflow", "--json")
    whole = b3dist(*words)
    assert whole.exit_code == 0
    assert whole.answer["metrics"]["test"]["accuracy"] is not None
    (tmp_path / "runs" / pooled_run.run_id / "pooled" / "metrics.json").unlink()
    damaged = b3dist(*words)
    assert damaged.exit_code == 1
    assert "metrics.json" in damaged.answer["error"]


def test_finished_run_is_said_to_be_finished_and_left_as_it_is(
    b3dist: Command, pooled_run: RunFolder, tmp_path: Path
) -> None:
    """No Ray, no MLflow, and no byte of its record changes; without its record or a bundle it is gone on with."""
    runs = tmp_path / "runs"
    shutil.copytree(pooled_run.path, runs / pooled_run.run_id)
    words = ("pooled", "--runs", runs, "--resume", pooled_run.run_id, "--json")
    first = b3dist(*words, "--no-mlflow")
    assert "already finished" not in first.stderr, "no summary.json yet"
    kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}
    again = b3dist(*words)
    assert (again.exit_code, again.answer) == (0, first.answer)
    assert f"run {pooled_run.run_id} has already finished: nothing is started or written" in again.stderr
    assert "starting Ray" not in again.stderr
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}
    assert after == kept
    run = RunFolder.open(runs, pooled_run.run_id)
    assert finished_summary(run) is not None
    shutil.rmtree(run.assets / "SIMA3")
    assert finished_summary(run) is None


def test_answer_has_the_contracts_keys_and_shows_baselines() -> None:
    """run_id, path and metrics; a person sees each number beside what costs nothing."""
    part = {
        "accuracy": 0.5,
        "macro_f1": 0.25,
        "return": {"rmse": 0.02},
        "mean_over_assets": {"ic": None},
        "baselines": {
            "majority": {"accuracy": 0.99, "macro_f1": 0.33},
            "persistence": {"return": {"rmse": 0.0199}},
        },
    }
    summary = {
        "run_id": "R",
        "totals": {
            "trained": 3, "skipped": 1, "failed": 1, "already_done": 0, "already_skipped": 0,
            "windows_trained": 10, "train_seconds": 1.0, "wall_seconds": 2.0,
        },
        "assets": [{"ticker": "ZERO3", "state": "failed", "error": "its open is 0"}],
        "metrics": {"val": part, "test": part, "best_epoch": 2, "epochs": 5},
        "pooled": {"epochs": 5, "workers": 2, "windows_per_s": 1000.0, "all_reduce_share": 0.125},
    }  # fmt: skip
    answer = _answer(Path("/runs/R"), summary)
    assert {"run_id", "path", "metrics", "workers", "all_reduce_share"} <= answer.payload.keys()
    console = Console(record=True, width=120)
    answer.show(console)
    shown = console.export_text()
    assert "0.9900" in shown
    assert "3 assets evaluated, 2 left out" in shown
    assert "ZERO3 failed: its open is 0" in shown
    assert answer.exit_code == 3
    assert "12% of it exchanging gradients" in shown


def test_progress_says_what_is_left_at_most() -> None:
    """Two epochs took three seconds: eight more take twelve, unless patience ends first."""
    epochs = [{"val_loss": 2.0, "num_train_windows": 1000, "seconds": seconds} for seconds in (1.0, 2.0)]
    assert _describe(epochs, 10) == "validation loss 2.0000, 500 windows/s, at most 0:12 left"
