"""`b3dist ingest` as a user runs it."""

import contextlib
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

import b3dist.cli.ingest as verb
from tests.cli.conftest import Outcome
from tests.data.cotahist_files import write_quotes

B3dist = Callable[..., Outcome]
SESSIONS = ["2024-01-02", "2024-01-03"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one COTAHIST file and something else."""
    folder = tmp_path / "files"
    folder.mkdir()
    write_quotes(folder / "COTAHIST_A2024.ZIP", ["PETR4", "VALE3"], SESSIONS, generated=date(2024, 1, 3))
    (folder / "notes.csv").write_text("a,b\n")
    return folder


def test_json_has_the_contracts_keys(b3dist: B3dist, folder: Path, tmp_path: Path) -> None:
    """files, bars, tickers, sessions and seconds; the same command again finds the file unchanged."""
    for status in ("ingested", "unchanged"):
        done = b3dist("ingest", folder, "--lake", tmp_path / "lake", "--json")
        assert done.exit_code == 0
        answer = done.answer
        assert answer["files"][0]["status"] == status
        assert {"path", "records", "kept", "sha256", "status"} <= answer["files"][0].keys()
        assert (answer["files"][0]["records"], answer["bars"], answer["tickers"]) == (4, 4, 2)
        assert (answer["first_session"], answer["last_session"]) == tuple(SESSIONS)
        assert answer["classes"] == {"ON": 4}
        assert answer["seconds"] > 0


def test_readable_answer_counts_by_class(b3dist: B3dist, folder: Path, tmp_path: Path) -> None:
    """Without --json: the files, what was ignored, and bars by class."""
    done = b3dist("ingest", folder, "--lake", tmp_path / "lake")
    assert done.exit_code == 0
    assert "4 bars of 2 tickers" in done.stdout
    assert "Bars by class: ON 4" in done.stdout
    assert "ignored" in done.stdout


def test_table_names_files_and_counts_what_is_left_out(b3dist: B3dist, tmp_path: Path) -> None:
    """No path that wraps; records outside the universe are explained, bars in the lake stand beside them."""
    folder = tmp_path / ("a-folder-with-a-long-name-" * 4)
    folder.mkdir()
    write_quotes(folder / "COTAHIST_A2024.ZIP", ["PETR4"], SESSIONS, generated=date(2024, 1, 3))
    (folder / "truth.json").write_text("{}")
    write_quotes(folder / "COTAHIST_A2023.ZIP", ["BOVA11"], ["2023-01-02"], generated=date(2024, 1, 3), bdi_code="14")
    done = b3dist("ingest", folder, "--lake", tmp_path / "lake")
    assert done.exit_code == 0, done.stderr
    assert str(folder) not in done.stdout
    assert " COTAHIST_A2024.ZIP " in done.stdout
    assert "COTAHIST_A2024.ZIP 2 2 2 ingested" in " ".join(done.stdout.split())
    assert "COTAHIST_A2023.ZIP 1 0 0 ingested" in " ".join(done.stdout.split())
    assert "1 records of other instruments left out (universe: shares)" in done.stdout
    assert done.stderr == ""


def test_a_file_that_gives_nothing_is_said(b3dist: B3dist, folder: Path, tmp_path: Path) -> None:
    """Files generated later hold all its sessions: 0 bars in the lake and one sentence on stderr."""
    assert b3dist("ingest", folder, "--lake", tmp_path / "lake").stderr == ""
    older = write_quotes(tmp_path / "COTAHIST_A2018.ZIP", ["SIMA3"], SESSIONS, generated=date(2024, 1, 2))
    done = b3dist("ingest", older, "--lake", tmp_path / "lake", "--json")
    assert done.stderr.splitlines() == [
        "b3dist: COTAHIST_A2018.ZIP gives the lake no bar: files generated later hold all of its sessions"
    ]
    assert [file["bars"] for file in done.answer["files"]] == [0]


def test_tickers_pushed_out_of_the_lake_are_said(b3dist: B3dist, folder: Path, tmp_path: Path) -> None:
    """A later file of another market takes the sessions over: one sentence with the tickers that are gone."""
    b3dist("ingest", folder, "--lake", tmp_path / "lake")
    newer = write_quotes(tmp_path / "COTAHIST_A2025.ZIP", ["SIMA3"], SESSIONS, generated=date(2025, 1, 2))
    done = b3dist("ingest", newer, "--lake", tmp_path / "lake")
    (line,) = done.stderr.splitlines()
    assert "COTAHIST_A2025.ZIP took 2 sessions over" in line
    assert "2 tickers are gone from the lake by that (PETR4, VALE3)" in line
    assert "2 bars of 1 tickers" in done.stdout


def test_a_bar_twice_in_a_file_is_said(b3dist: B3dist, tmp_path: Path) -> None:
    """One sentence on stderr with the file, the bar and both lines; the last record is in the lake."""
    path = write_quotes(tmp_path / "COTAHIST_A2024.TXT", ["PETR4", "PETR4"], SESSIONS, generated=date(2024, 1, 9))
    done = b3dist("ingest", path, "--lake", tmp_path / "lake")
    (line,) = done.stderr.splitlines()
    assert "COTAHIST_A2024.TXT has 2 bars twice, and the last record counts: PETR4 on" in line
    assert "on lines 2 and 3 (the first of them)" in line
    assert "4 2 ingested" in " ".join(done.stdout.split())


def test_warnings_of_many_files_are_cut(b3dist: B3dist, folder: Path, tmp_path: Path) -> None:
    """A folder of superseded files does not fill the screen: five are named, the others counted."""
    b3dist("ingest", folder, "--lake", tmp_path / "lake")
    older = tmp_path / "older"
    older.mkdir()
    for day in range(1, 9):
        write_quotes(older / f"COTAHIST_D0{day}.ZIP", ["PETR4"], SESSIONS, generated=date(2020, 1, day), seed=day)
    lines = b3dist("ingest", older, "--lake", tmp_path / "lake").stderr.splitlines()
    assert len(lines) == 6
    assert "3 more files" in lines[-1]


def test_a_bad_file_exits_1_and_is_named(b3dist: B3dist, folder: Path, tmp_path: Path) -> None:
    """A damaged file refuses the command; with --keep-going the good file goes in and the exit code is still 1."""
    (folder / "COTAHIST_A2025.ZIP").write_bytes(b"damaged")
    done = b3dist("ingest", folder, "--lake", tmp_path / "lake", "--json")
    assert done.exit_code == 1
    assert "COTAHIST_A2025.ZIP" in done.answer["error"]
    assert done.answer["hint"]
    done = b3dist("ingest", folder, "--lake", tmp_path / "lake", "--keep-going", "--json")
    assert done.exit_code == 1
    assert [file["status"] for file in done.answer["files"]] == ["ingested", "refused"]
    assert done.answer["bars"] == 4
    assert "1 of 2 files refused" in done.answer["error"]
    assert done.answer["hint"]


def test_wrong_usage_exits_2(b3dist: B3dist, folder: Path) -> None:
    """An unknown universe or no source at all is wrong usage."""
    assert b3dist("ingest", folder, "--universe", "options").exit_code == 2
    assert b3dist("ingest").exit_code == 2


def test_long_reading_is_logged_line_by_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Away from a terminal a plain line tells how far the reading is, and not too often."""
    monkeypatch.setattr(verb, "_QUIET_S", 0.0)
    with verb._Display() as display:
        for percent in range(100):
            display.update(Path("COTAHIST_A2024.ZIP"), percent / 100)
    assert capsys.readouterr().err == "reading COTAHIST_A2024.ZIP: 0%\n"


def _everything_written_to(terminal: int) -> str:
    content = b""
    with contextlib.suppress(OSError):  # how a terminal ends once its other side is closed
        while part := os.read(terminal, 4096):
            content += part
    os.close(terminal)
    return content.decode()


def test_long_reading_shows_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal there is a progress bar for the file that is being read."""
    monkeypatch.setattr(verb, "_QUIET_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", terminal)
        with verb._Display() as display:
            display.update(Path("COTAHIST_A2023.ZIP"), 1.0)
            display.update(Path("COTAHIST_A2024.ZIP"), 0.5)
    shown = _everything_written_to(ours)
    assert "COTAHIST_A2024.ZIP" in shown
    assert "50%" in shown
