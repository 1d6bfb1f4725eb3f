"""Every command that goes on with a run is whole: it can be copied and called from any folder."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.assignments import Assignments
from b3dist.distributed.fit_thread import FitThread
from b3dist.distributed.fleet.options import FleetOptions, how_to_resume
from b3dist.distributed.fleet.watch import FleetWatch
from b3dist.distributed.pooled.drive import PooledOptions, _outcome
from b3dist.distributed.selection import new_run, reopen_lake
from b3dist.distributed.sweep.budget import TimeBudget
from b3dist.distributed.sweep.drive import how_to_resume as how_to_resume_sweep
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.errors import RunError
from b3dist.run_folder import RunFolder
from tests.distributed.sweeps import begun

ROOT = Path(__file__).resolve().parents[2]


class Failing:
    """A trainer whose workers always give up."""

    def fit(self) -> None:
        """Raise."""
        raise ValueError("no luck")


def resumed(run: RunFolder, *given: str) -> list[str]:
    """The words that go on with a run, after what else was given."""
    return ["b3dist", run.settings.kind, "--resume", run.run_id, "--runs", str(run.path.parent), *given]


def test_a_fleet_whose_workers_ended_is_resumed_as_it_was_driven(small_lake: Path, tmp_path: Path) -> None:
    """In a folder of runs with a space in its name, on the same cluster, elastic as before."""
    options = FleetOptions(workers=(2, 8), engine="stack", address="head:6379", tracking=False)
    run = new_run(Lake(small_lake), tmp_path / "my runs", Config(), options=options.to_kept())
    assignments = Assignments(run.settings.tickers, ledger_path=run.ledger, assets_dir=run.assets)
    again = how_to_resume(run, options)
    watch = FleetWatch(run, assignments, started=0.0, on_progress=None, how_to_resume=again)
    with pytest.raises(RunError, match="the workers ended with 6 assets left: ValueError: no luck") as caught:
        watch.require_complete(ValueError("no luck"))
    words = resumed(run, "--workers", "2:8", "--address", "head:6379", "--no-mlflow")
    assert caught.value.hint == f"resume with: {shlex.join(words)}"
    assert "'" in caught.value.hint, "the space is quoted"


def test_a_fleet_says_again_only_what_its_folder_does_not_keep(small_lake: Path, tmp_path: Path) -> None:
    """Another engine than it was begun with, or CPUs where it was begun on GPUs."""
    kept = FleetOptions(gpus_per_worker=0.5).to_kept()
    run = new_run(Lake(small_lake), tmp_path, Config(), options=kept)
    assert shlex.split(how_to_resume(run, FleetOptions(gpus_per_worker=0.5))) == resumed(run)
    on_cpus = resumed(run, "--gpus-per-worker", "0", "--engine", "single")
    assert shlex.split(how_to_resume(run, FleetOptions(engine="single"))) == on_cpus


def test_a_moved_lake_is_named_again(small_lake: Path, tmp_path: Path) -> None:
    """The folder keeps where the lake was when the run was begun."""
    run = new_run(Lake(small_lake), tmp_path, Config())
    assert run.how_to_resume() == shlex.join(resumed(run))
    (tmp_path / "copy").mkdir()
    for entry in Path(small_lake).iterdir():
        (tmp_path / "copy" / entry.name).symlink_to(entry)
    opened = RunFolder.open(tmp_path, run.run_id)
    reopen_lake(opened, tmp_path / "copy")
    assert shlex.split(opened.how_to_resume()) == resumed(run, "--lake", str(tmp_path / "copy"))


def test_a_pooled_run_whose_workers_gave_up_is_resumed_as_it_was_driven(small_lake: Path, tmp_path: Path) -> None:
    """With the folder of its runs and what the run does not keep."""
    run = new_run(Lake(small_lake), tmp_path, Config(), kind="pooled")
    fit = FitThread(Failing())
    fit.run()
    with pytest.raises(RunError, match="the workers gave up: no luck") as caught:
        _outcome(fit, run, PooledOptions(workers=2, tracking_uri="sqlite:///x y.db"))
    words = resumed(run, "--workers", "2", "--tracking-uri", "sqlite:///x y.db")
    assert caught.value.hint == f"resume with: {shlex.join(words)}"


def test_a_sweep_is_resumed_as_it_was_driven(small_lake: Path, tmp_path: Path) -> None:
    """It keeps its engine and its GPUs, not its hours."""
    sweep = begun(small_lake, tmp_path)
    assert shlex.split(how_to_resume_sweep(sweep, FleetOptions(workers=3))) == resumed(sweep.run, "--workers", "3")
    on_gpus = FleetOptions(gpus_per_worker=1, engine="stack")
    given = ["--gpus-per-worker", "1", "--engine", "stack"]
    assert shlex.split(how_to_resume_sweep(sweep, on_gpus)) == resumed(sweep.run, *given)
    budget = TimeBudget(0.5)
    assert shlex.split(how_to_resume_sweep(sweep, on_gpus, budget)) == resumed(sweep.run, "--max-hours", "0.5", *given)
    plan = dataclasses.replace(sweep.plan, engine="stack", gpus_per_worker=1)
    begun_on_gpus = SweepFolder(sweep.run, plan)
    assert shlex.split(how_to_resume_sweep(begun_on_gpus, on_gpus)) == resumed(sweep.run)


def test_resume_commands_are_put_together_in_one_place() -> None:
    """No message of the package writes one of its own, which would forget a part."""
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "b3dist").rglob("*.py")}
    composed = re.compile(r'--resume \{|"--resume", (?!help=)')
    assert [path.name for path, text in sources.items() if composed.search(text)] == ["run_folder.py"]
