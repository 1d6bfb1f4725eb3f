"""`b3dist runs` and `b3dist report` without a run's name, and where there are no runs."""

from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Outcome
from tests.distributed.runs import start_run
from tests.report.run_builder import make_run, write_ledger

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


def test_list_says_what_a_run_amounts_to(b3dist: Command, tmp_path: Path) -> None:
    """Assets trained under models of their own, or judged under one; what was left out if anything was."""
    make_run(tmp_path, "20240101-000000-aaaa", skipped=[("NEWC3", "short")], failed=[("OGXP3", "diverged")])
    make_run(tmp_path, "20240102-000000-aaaa", kind="pooled")
    pooled, fleet = (
        " ".join(line.split()) for line in b3dist("runs", "list", "--runs", tmp_path).stdout.splitlines()[1:]
    )
    assert pooled == "20240102-000000-aaaa pooled finished 2 of 2 assets judged under one model"
    assert fleet == "20240101-000000-aaaa fleet finished 2 of 4 assets trained, 1 skipped, 1 failed"


def test_status_says_which_epoch_was_kept(b3dist: Command, tmp_path: Path) -> None:
    """0 of 3: a warm start that no epoch was better than."""
    run = make_run(tmp_path, trained=["PETR4"])
    metrics = {"accuracy": 0.5, "macro_f1": 0.25, "ic": None, "best_epoch": 0}
    event = {"event": "trained", "ticker": "PETR4", "seconds": 1.5, "epochs": 3, "metrics": metrics}
    write_ledger(run, [{"event": "opened", "invocation": 1}, event])
    rows = [line.split() for line in b3dist("runs", "status", "--runs", tmp_path).stdout.splitlines()]
    assert ["ticker", "state", "seconds", "epochs", "kept", "accuracy", "macro_f1", "ic", "why"] in rows
    assert ["PETR4", "trained", "1.500", "3", "0", "0.500", "0.250"] in rows


def test_report_warns_of_a_damaged_summary(b3dist: Command, tmp_path: Path) -> None:
    """In words, and under `problems` in JSON; the page is written all the same."""
    run = make_run(tmp_path)
    (run / "summary.json").write_text('{"state": "finished", "totals": 3}', encoding="utf-8")
    shown = b3dist("report", run.name, "--runs", tmp_path)
    assert shown.exit_code == 0
    assert f"warning: {run / 'summary.json'} is damaged: totals must be an object, got 3; b3dist fleet" in shown.stdout
    answer = b3dist("report", run.name, "--runs", tmp_path, "--json").answer
    assert len(answer["problems"]) == 1
    assert Path(answer["path"]).is_file()


def test_prune_says_what_stays(b3dist: Command, tmp_path: Path) -> None:
    """MLflow's entries, where there are any; its help says what else, and how they go too."""
    runs = tmp_path / "runs"
    for day in (1, 2, 3):
        make_run(runs, f"2024010{day}-000000-aaaa", trained=[])
    assert "MLflow" not in b3dist("runs", "prune", "--keep", 2, "--runs", runs).stdout
    store = tmp_path / "mlflow.db"
    store.write_bytes(b"entries")
    assert (
        f"MLflow keeps its entries and their artifacts, see --help: {store}"
        in b3dist("runs", "prune", "--keep", 1, "--runs", runs).stdout
    )
    assert "MLflow" not in b3dist("runs", "prune", "--keep", 1, "--runs", runs).stdout, "nothing was deleted"
    assert store.read_bytes() == b"entries"
    told = " ".join(b3dist("runs", "prune", "--help").stdout.split())
    for word in ("releases (they hold copies)", "MLflow's entries", "`mlflow gc`", "--storage"):
        assert word in told
