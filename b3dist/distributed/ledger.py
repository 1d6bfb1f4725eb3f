"""An append-only record of what happened in a run: one JSON object a line, on disk before anything depends on it.

JSON Lines and not SQLite: there is one writer, a torn last line is all that a crash can leave, no lock files are needed
on shared storage, and a person can read it. The writer holds a lock on the file, which ends with its process: a
coordinator may outlive its killed driver by a second and still write.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from b3dist.errors import RunError, StorageError

Event = dict[str, Any]

_PATIENCE_S = 30.0
"""How long a former writer may take to end; Ray ends a coordinator within seconds of its driver."""


class Ledger:
    """Open for appending, alone; a line that a crash left incomplete is cut off first.

    Args:
        path: of the ledger.
        patience_s: how long to wait for a former writer to end.

    Raises:
        RunError: another process goes on writing it.
        StorageError: the file cannot be opened or cut.
    """

    def __init__(self, path: Path, *, patience_s: float = _PATIENCE_S) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._lock(patience_s)
            self._size = sum(len(line) for line in _complete_lines(path))
            os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            raise StorageError(f"cannot write the ledger {path}: {error.strerror}") from error

    def _lock(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._descriptor)
                    raise RunError(
                        f"another process still writes the ledger {self.path}",
                        hint="wait until the run's former driver and its workers have ended, then resume",
                    ) from None
            time.sleep(0.1)

    def append(self, event: str, **fields: Any) -> Event:
        """Write one event and return it once it is on the disk.

        Raises:
            StorageError: disk full or not writable; nothing of the event is left in the file.
        """
        record: Event = {"event": event, "at": round(time.time(), 3), **fields}
        line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):  # the disk filled up half-way: the second write names the reason
                os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise StorageError(
                f"cannot write the ledger {self.path}: {error.strerror}", hint="free some space, then resume the run"
            ) from error
        self._size += len(line)
        return record

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_ledger(path: Path) -> list[Event]:
    """Every complete event of a ledger, oldest first; none if there is no file.

    Raises:
        RunError: a line before the last one is no event, or the file cannot be read.
    """
    events: list[Event] = []
    for number, line in enumerate(_complete_lines(path), start=1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or "event" not in event:
                raise ValueError("expected an object with an event")
            events.append(event)
        except ValueError as error:
            raise RunError(
                f"{path}, line {number} is not a ledger entry: {error}", hint="the run is damaged: start a new one"
            ) from error
    return events


def _complete_lines(path: Path) -> Iterator[bytes]:
    """The lines of a ledger that end with a line feed: what was appended whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"cannot read the ledger {path}: {error.strerror}") from error
    for line in content.splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield line
