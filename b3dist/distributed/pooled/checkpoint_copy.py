"""A run's checkpoints at a storage: how far they reach, and copying them to another one.

Ray Train's snapshot names the checkpoints that it would go on from by their folders beside it, so both can be copied as
they are; one that is not named there counts for nothing.
"""

import json
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

from b3dist.distributed.pooled.checkpoint_storage import GOES_ON, TIMEOUT_S, ask_apart, require_written, why_unread
from b3dist.errors import StorageError

_SNAPSHOT: Final = "checkpoint_manager_snapshot.json"
_ORPHANS_S: Final = 2.0
_LATEST: Final = "latest_checkpoint_result"


def epochs_kept(storage: str, run_id: str, *, timeout_s: float = TIMEOUT_S) -> int:
    """Epochs in the newest checkpoint of a run at a storage; 0 without any.

    Raises:
        StorageError: the storage cannot be read; says why.
    """
    answer = ask_apart(_look, storage, run_id, timeout_s=timeout_s)
    if (why := why_unread(storage, answer, timeout_s)) is not None:
        raise StorageError(f"cannot read checkpoints at {storage}: {why}", hint=f"remove {run_id} there to begin anew")
    return int(answer["epochs"])


def copy_checkpoints(old: str, new: str, run_id: str, *, timeout_s: float = TIMEOUT_S) -> str | None:
    """Copy a run's checkpoints to another storage, unless that one's reach as far; the old ones stay where they are.

    Args:
        old: where they are, or were.
        new: where they are to be.
        run_id: whose.
        timeout_s: how long a single file may take.

    Returns:
        Why those at the old place cannot be read; None if they could, or if there are none.

    Raises:
        StorageError: the new place cannot be written.
    """
    answer = ask_apart(_copy, old, new, run_id, timeout_s=timeout_s)
    if "failed" in answer:  # workers that have outlived a killed driver for a moment may have replaced what was read
        time.sleep(_ORPHANS_S)
        answer = ask_apart(_copy, old, new, run_id, timeout_s=timeout_s)
    if "unwritten" in answer:
        require_written(new, {"failed": answer["unwritten"]}, timeout_s)
    return why_unread(old, answer, timeout_s)


def _look(storage: str, run_id: str, answer: Connection) -> None:
    """In the other process: the epochs of the newest checkpoint."""
    try:
        filesystem, folder = _open(storage, run_id)
        answer.send({"epochs": _reach(_read_snapshot(filesystem, folder))})
    except (OSError, ValueError, LookupError, TypeError) as error:  # Arrow's errors are among them
        answer.send({"failed": str(error)})


def _copy(old: str, new: str, run_id: str, answer: Connection) -> None:
    """In the other process: file by file, the snapshot last, so that an interrupted copy counts for nothing."""
    failures = (OSError, ValueError, LookupError, TypeError)
    try:
        target, there = _open(new, run_id)
        reached = _reach(_read_snapshot(target, there))
    except failures:
        reached = 0  # what is damaged there is replaced
    try:
        source, here = _open(old, run_id)
        for name, content in _read_checkpoints(source, here, beyond=reached):
            try:
                _write(target, f"{there}/{name}", content)
            except failures as error:
                answer.send({"unwritten": str(error)})
                return
            answer.send(GOES_ON)
    except failures as error:
        answer.send({"failed": str(error)})
    else:
        answer.send({})


def _open(storage: str, run_id: str) -> tuple[Any, str]:
    """The storage's file system, and the run's folder in it."""
    from pyarrow.fs import FileSystem

    filesystem, path = FileSystem.from_uri(storage)
    return filesystem, f"{path.rstrip('/')}/{run_id}"


def _read_checkpoints(filesystem: Any, folder: str, *, beyond: int) -> Iterator[tuple[str, bytes]]:
    """Every file of the checkpoints that the snapshot names, by its path in the folder, and at last the snapshot."""
    from pyarrow.fs import FileSelector

    snapshot = _read_snapshot(filesystem, folder)
    if snapshot is None or _reach(snapshot) <= beyond:
        return
    for name in [one["checkpoint_dir_name"] for one in snapshot["checkpoint_results"]]:
        found = filesystem.get_file_info(FileSelector(f"{folder}/{name}", recursive=True))
        files = [entry.path for entry in found if entry.is_file]
        if not files:
            raise FileNotFoundError(f"{name} is empty")
        for file in files:
            yield f"{name}/{file.rpartition(f'/{name}/')[2]}", _read(filesystem, file)
    yield _SNAPSHOT, _read(filesystem, f"{folder}/{_SNAPSHOT}")


def _read_snapshot(filesystem: Any, folder: str) -> dict[str, Any] | None:
    """What Ray Train's snapshot in a folder holds; None if there is none."""
    file = f"{folder}/{_SNAPSHOT}"
    if not filesystem.get_file_info(file).is_file:
        return None
    content: dict[str, Any] = json.loads(_read(filesystem, file))
    return content


def _reach(snapshot: Mapping[str, Any] | None) -> int:
    """Epochs in the newest checkpoint that a snapshot names."""
    if snapshot is None or snapshot[_LATEST] is None:
        return 0
    return int(snapshot[_LATEST]["metrics"]["epoch"])


def _read(filesystem: Any, path: str) -> bytes:
    with filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())


def _write(filesystem: Any, path: str, content: bytes) -> None:
    if filesystem.type_name != "s3":  # has no folders
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)
