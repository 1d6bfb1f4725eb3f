"""`b3dist runs` and `b3dist report` without a run's name, and where there are no runs."""

from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Outcome
from tests.distributed.runs import start_run
from tests.report.run_builder import make_run

Command = Callable[..., Outcome]


def test_status_is_of_the_newest_run_by_default(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Names begin with the time of creation: the run made now is newer than one of 2024."""
    make_run(tmp_path / "runs", trained=[])
    newest = start_run(small_lake, tmp_path / "runs")
    assert b3dist("runs", "status", "--runs", tmp_path / "runs", "--json").answer["run_id"] == newest.run_id


def test_no_runs_are_said(b3dist: Command, tmp_path: Path) -> None:
    """`list` of an absent folder is empty and says so; `status` and `report` have nothing to show."""
    nowhere = tmp_path / "nowhere"
    assert b3dist("runs", "list", "--runs", nowhere, "--json").answer == {"runs": []}
    listed = b3dist("runs", "list", "--runs", nowhere)
    assert (listed.exit_code, listed.stdout.replace("\n", "")) == (0, f"no runs in {nowhere}")
    for verb in (["runs", "status"], ["report"]):
        done = b3dist(*verb, "--runs", nowhere, "--json")
        assert done.exit_code == 1
        assert f"there are no runs in {nowhere}" in done.answer["error"]
