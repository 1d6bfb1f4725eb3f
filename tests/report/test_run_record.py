"""Reading runs that are complete, cut off, damaged or absent."""

import json
import os
from pathlib import Path

import pytest

from b3dist.errors import RunError, StorageError
from b3dist.report.run_record import read_asset, read_run, write_note
from tests.report.run_builder import make_bundle, make_run, write_ledger

RUN = "20240102-030405-abcd"


def test_finished_run(tmp_path: Path) -> None:
    """Trained assets by folder, the others with their reason from the ledger."""
    make_run(tmp_path, skipped=[("NEWC3", "400 sessions, 1000 needed")], failed=[("OGXP3", "diverged")])
    run = read_run(tmp_path, RUN)
    assert (run.state, list(run.trained), list(run.problems)) == ("finished", ["PETR4", "VALE3"], [])
    assert [(one.ticker, one.state, one.reason) for one in run.untrained] == [
        ("NEWC3", "skipped", "400 sessions, 1000 needed"),
        ("OGXP3", "failed", "diverged"),
    ]


def test_killed_run_tells_what_was_in_flight(tmp_path: Path) -> None:
    """With neither summary nor driver a run is interrupted; assets in flight, requeued and untouched are told apart."""
    path = make_run(tmp_path, trained=["PETR4"], failed=[("AAAA3", ""), ("BBBB3", ""), ("CCCC3", "")], finished=False)
    write_ledger(
        path,
        [
            {"event": "opened", "invocation": 1},
            {"event": "failed", "ticker": "CCCC3", "error": "old"},
            {"event": "opened", "invocation": 2},
            {"event": "leased", "ticker": "AAAA3"},
            {"event": "requeued", "ticker": "BBBB3", "why": "worker group restarted"},
        ],
    )
    run = read_run(tmp_path, RUN)
    assert (run.state, list(run.problems)) == ("interrupted", [])
    assert {one.ticker: (one.state, one.reason) for one in run.untrained} == {
        "AAAA3": ("waiting", "in training"),
        "BBBB3": ("waiting", "to be tried again: worker group restarted"),
        "CCCC3": ("waiting", "not begun"),
    }


def test_driven_run_is_running(tmp_path: Path) -> None:
    """While a driver holds the lock the run is running, whatever an earlier invocation's summary says."""
    import fcntl

    path = make_run(tmp_path)
    descriptor = os.open(path / "driver.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        run = read_run(tmp_path, RUN)
    finally:
        os.close(descriptor)
    assert (run.state, run.summary) == ("running", {})


def test_missing_files_of_the_run_are_named(tmp_path: Path) -> None:
    """Without config and ledger the run is read from its folders and its summary, and both are named."""
    path = make_run(tmp_path)
    (path / "config.json").unlink()
    (path / "ledger.jsonl").unlink()
    summary = {"state": "finished", "assets": [{"ticker": "OGXP3", "state": "failed", "error": "worker died"}]}
    (path / "summary.json").write_text(json.dumps(summary))
    run = read_run(tmp_path, RUN)
    assert list(run.problems) == ["config.json is missing", "ledger.jsonl is missing"]
    assert [(one.ticker, one.reason) for one in run.untrained] == [("OGXP3", "worker died")]


def test_lists_of_another_type_are_left_out(tmp_path: Path) -> None:
    """A hand-edited config.json or summary.json does not stop the report of what was trained."""
    path = make_run(tmp_path)
    (path / "ledger.jsonl").unlink()
    (path / "config.json").write_text(json.dumps({"tickers": 5}))
    (path / "summary.json").write_text(json.dumps({"state": "finished", "assets": [7, {"ticker": "OGXP3"}]}))
    run = read_run(tmp_path, RUN)
    assert list(run.trained) == ["PETR4", "VALE3"]
    assert list(run.untrained) == []


def test_damaged_ledger_is_named(tmp_path: Path) -> None:
    """A line in the middle that is not JSON is a problem named by file and line; the trained assets are still there."""
    path = make_run(tmp_path)
    ledger = path / "ledger.jsonl"
    ledger.write_text("not json\n" + ledger.read_text())
    run = read_run(tmp_path, RUN)
    assert list(run.trained) == ["PETR4", "VALE3"]
    assert "ledger.jsonl, line 1" in run.problems[0]


def test_note_is_kept_with_the_run(tmp_path: Path) -> None:
    """What was noted is read back; a run without a note has none, an unreadable one is a problem that is named."""
    path = make_run(tmp_path)
    assert (read_run(tmp_path, RUN).note, list(read_run(tmp_path, RUN).problems)) == ("", [])
    write_note(path, "simulated")
    assert read_run(tmp_path, RUN).note == "simulated"
    (path / "note.txt").write_bytes(b"\xff")
    assert "note.txt is unreadable" in read_run(tmp_path, RUN).problems[0]
    with pytest.raises(StorageError, match=r"note\.txt"):
        write_note(tmp_path / "nowhere", "simulated")


def test_missing_and_damaged_files_of_an_asset_are_named(tmp_path: Path) -> None:
    """Each file that cannot be read is named, the others are there."""
    folder = make_bundle(tmp_path / "PETR4")
    (folder / "history.csv").unlink()
    (folder / "metrics.json").write_text('{"val": ')
    (folder / "predictions.parquet").write_bytes(b"PAR1 but not really")
    asset = read_asset(folder)
    assert (asset.metrics, asset.history, asset.predictions) == (None, None, None)
    assert asset.facts is not None
    assert [text.split()[0] for text in asset.missing] == ["metrics.json", "history.csv", "predictions.parquet"]
    assert asset.missing[1] == "history.csv is missing"


def test_undefined_numbers_are_none(tmp_path: Path) -> None:
    """An empty cell of the history and a NaN in metrics.json are None."""
    folder = make_bundle(tmp_path / "PETR4")
    (folder / "history.csv").write_text("epoch,train_loss,val_loss,val_macro_f1\n1,2.0,3.0,\n")
    (folder / "metrics.json").write_text('{"train_loss": NaN}')
    asset = read_asset(folder)
    assert asset.history == {"epoch": [1.0], "train_loss": [2.0], "val_loss": [3.0], "val_macro_f1": [None]}
    assert asset.metrics == {"train_loss": None}


@pytest.mark.parametrize("run_id", ["20240102-030405-abce", "..", "", "../runs"])
def test_unknown_run_is_refused(tmp_path: Path, run_id: str) -> None:
    """A run that is not there is one error that names the nearest; a path is no run."""
    make_run(tmp_path)
    with pytest.raises(RunError, match="there is no run") as caught:
        read_run(tmp_path, run_id)
    assert RUN in caught.value.hint


def test_no_runs_at_all(tmp_path: Path) -> None:
    """A folder without runs says so."""
    with pytest.raises(RunError) as caught:
        read_run(tmp_path / "nowhere", RUN)
    assert "--runs" in caught.value.hint
