"""The append-only ledger."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from b3dist.distributed.assignments import Assignments
from b3dist.distributed.ledger import Ledger, read_ledger
from b3dist.errors import RunError, StorageError


def test_events_are_read_back_in_order(tmp_path: Path) -> None:
    """What was appended, by one opening or two, is what is read."""
    path = tmp_path / "ledger.jsonl"
    for number in range(2):
        ledger = Ledger(path)
        ledger.append("leased", ticker=f"ABCD{number}")
        ledger.append("trained", ticker=f"ABCD{number}")
        ledger.close()
    assert [(event["event"], event["ticker"]) for event in read_ledger(path)] == [
        ("leased", "ABCD0"),
        ("trained", "ABCD0"),
        ("leased", "ABCD1"),
        ("trained", "ABCD1"),
    ]


def test_no_file_is_no_events(tmp_path: Path) -> None:
    """A run that never started has an empty history."""
    assert read_ledger(tmp_path / "ledger.jsonl") == []


@pytest.mark.parametrize("kept", range(1, 30, 7))
def test_line_torn_by_a_crash_is_cut_off_and_appending_goes_on(tmp_path: Path, kept: int) -> None:
    """However many bytes of the last line reached the disk, the events before it and after it are whole."""
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append("group", attempt=1)
    whole = path.stat().st_size
    ledger.append("group", attempt=2)
    ledger.close()
    os.truncate(path, whole + kept)
    assert [event["attempt"] for event in read_ledger(path)] == [1]
    ledger = Ledger(path)
    ledger.append("group", attempt=3)
    ledger.close()
    assert [event["attempt"] for event in read_ledger(path)] == [1, 3]


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    """A line that was written whole but is no JSON means somebody else wrote: nothing is guessed."""
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append("group", attempt=1)
    ledger.close()
    path.write_bytes(path.read_bytes() + b"not json\n" + path.read_bytes())
    with pytest.raises(RunError, match="line 2"):
        read_ledger(path)


def test_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    """A ledger in a folder that does not exist says so."""
    with pytest.raises(StorageError, match="cannot write the ledger"):
        Ledger(tmp_path / "absent" / "ledger.jsonl")


_FILL = """
import sys
from pathlib import Path
from b3dist.distributed.ledger import Ledger
from b3dist.errors import StorageError
ledger = Ledger(Path(sys.argv[1]))
written = 0
try:
    for written in range(1000):
        ledger.append("trained", ticker="PETR4", number=written)
except StorageError as error:
    print(written, error.message)
"""


def test_full_disk_is_a_storage_error_and_leaves_no_torn_line(tmp_path: Path) -> None:
    """At a limit on the file's size the append fails as a whole; everything before it is kept."""
    path = tmp_path / "ledger.jsonl"
    limit = 1000
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(path)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    written, _, message = done.stdout.partition(" ")
    assert "File too large" in message
    assert path.read_bytes().endswith(b"\n")
    assert [event["number"] for event in read_ledger(path)] == list(range(int(written)))


_HOLD = """
import sys, time
from pathlib import Path
from b3dist.distributed.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("open", flush=True)
time.sleep(float(sys.argv[2]))
ledger.append("opened", invocation=1, pid=1, host="late")
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that owns the ledger and appends to it just before it ends."""
    words = [sys.executable, "-c", _HOLD, str(path), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_a_ledger_has_one_writer(tmp_path: Path) -> None:
    """While another process writes it, opening it is refused; once that process is killed, it is free."""
    path = tmp_path / "ledger.jsonl"
    process = hold(path, 60)
    with pytest.raises(RunError, match="another process still writes"):
        Ledger(path, patience_s=0.3)
    process.kill()
    process.communicate()
    Ledger(path, patience_s=5).close()


def test_what_a_former_writer_appends_last_is_not_missed(tmp_path: Path) -> None:
    """A run opened while an orphaned coordinator still writes knows its last event."""
    path = tmp_path / "ledger.jsonl"
    process = hold(path, 1)
    assignments = Assignments(("AAAA3",), ledger_path=path, assets_dir=tmp_path / "assets")
    process.communicate()
    assert assignments.invocation == 1
    assignments.close()
