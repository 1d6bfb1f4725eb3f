"""A run's checkpoints go along to another storage, whole or not at all; no cluster."""

import socket
from pathlib import Path

import pytest

from b3dist.data.lake import Lake
from b3dist.distributed.pooled.checkpoint_copy import copy_checkpoints, epochs_kept
from b3dist.distributed.pooled.folder import KIND, STORAGE_OPTION, storage_of
from b3dist.distributed.pooled.move import move_checkpoints
from b3dist.distributed.selection import new_run
from b3dist.errors import RunError, StorageError
from b3dist.recipes import pooled
from b3dist.run_folder import RunFolder
from tests.distributed.checkpoints import RUN, keep
from tests.distributed.runs import contents


def files(folder: Path) -> dict[str, str]:
    """sha256 by path."""
    return {name: digest for name, (digest, _) in contents(folder).items() if "checkpoint_half" not in name}


def test_what_the_snapshot_names_is_copied_and_the_old_stays(tmp_path: Path) -> None:
    """Byte by byte; a half checkpoint stays behind."""
    old = keep(tmp_path / "old", epochs=7)
    before = contents(old)
    assert copy_checkpoints(str(tmp_path / "old"), str(tmp_path / "new"), RUN) is None
    assert contents(old) == before
    assert contents(tmp_path / "new" / RUN).keys() == files(old).keys()
    assert files(tmp_path / "new" / RUN) == files(old)
    assert epochs_kept(str(tmp_path / "new"), RUN) == 7
    assert epochs_kept(str(tmp_path / "new"), "another") == 0


@pytest.mark.parametrize(("there", "expected"), [(4, 7), (9, 9)])
def test_what_reaches_farther_is_kept(tmp_path: Path, there: int, expected: int) -> None:
    """A run that comes back to a former place, or whose checkpoints somebody copied, loses no epoch."""
    keep(tmp_path / "old", epochs=7)
    keep(tmp_path / "new", epochs=there)
    assert copy_checkpoints(str(tmp_path / "old"), str(tmp_path / "new"), RUN) is None
    assert epochs_kept(str(tmp_path / "new"), RUN) == expected


def test_a_snapshot_that_names_what_is_gone_is_not_copied(tmp_path: Path) -> None:
    """Ray Train would not start from it."""
    old = keep(tmp_path / "old", epochs=7)
    (old / "checkpoint_2024-01-02_03-04-07.1").rename(tmp_path / "elsewhere")
    why = copy_checkpoints(str(tmp_path / "old"), str(tmp_path / "new"), RUN)
    assert why is not None
    assert "03-04-07.1" in why
    assert epochs_kept(str(tmp_path / "new"), RUN) == 0


def test_an_empty_checkpoint_is_not_copied(tmp_path: Path) -> None:
    """The copy would promise epochs that no worker can start from."""
    old = keep(tmp_path / "old", epochs=7)
    newest = old / "checkpoint_2024-01-02_03-04-07.1"
    for file in (newest / "state.pt", newest / "deeper" / "more"):
        file.unlink()
    why = copy_checkpoints(str(tmp_path / "old"), str(tmp_path / "new"), RUN)
    assert why == "checkpoint_2024-01-02_03-04-07.1 is empty"
    assert epochs_kept(str(tmp_path / "new"), RUN) == 0


def test_a_damaged_snapshot_is_named(tmp_path: Path) -> None:
    """At the old place it means that nothing can be read, at the new one that nothing is there."""
    old = keep(tmp_path / "old", epochs=7)
    new = keep(tmp_path / "new", epochs=9)
    (new / "checkpoint_manager_snapshot.json").write_text("{", encoding="utf-8")
    with pytest.raises(StorageError, match=f"cannot read checkpoints at {tmp_path / 'new'}: "):
        epochs_kept(str(tmp_path / "new"), RUN)
    assert copy_checkpoints(str(tmp_path / "old"), str(tmp_path / "new"), RUN) is None
    assert epochs_kept(str(tmp_path / "new"), RUN) == 7
    (old / "checkpoint_manager_snapshot.json").write_text("{", encoding="utf-8")
    assert copy_checkpoints(str(tmp_path / "old"), str(tmp_path / "third"), RUN) is not None


def test_a_server_that_is_gone_is_no_reason_not_to_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is copied, and why is told."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        gone = f"s3://bucket/folder?endpoint_override={address}&scheme=http&region=us-east-1"
        assert copy_checkpoints(gone, str(tmp_path), RUN, timeout_s=3) == "no answer within 3 s"


@pytest.fixture
def run(small_lake: Path, tmp_path: Path) -> RunFolder:
    """A pooled run that has kept seven epochs in its own folder."""
    run = new_run(Lake(small_lake), tmp_path / "runs", pooled(), kind=KIND)
    keep(run.path / "ray", epochs=7, run_id=run.run_id)
    return run


def test_a_run_remembers_where_it_was_moved(run: RunFolder, tmp_path: Path) -> None:
    """Its own folder is emptied once the checkpoints are elsewhere; everything else it was begun with stays."""
    moved = move_checkpoints(run, str(tmp_path / "new"))
    assert (moved.epochs, moved.former, moved.unread) == (7, str(run.path / "ray"), None)
    assert not (run.path / "ray").exists()
    again = RunFolder.open(tmp_path / "runs", run.run_id)
    assert storage_of(again) == str(tmp_path / "new")
    assert {**again.settings.to_dict(), "options": {}} == {**run.settings.to_dict(), "options": {}}
    back = move_checkpoints(again, str(run.path / "ray" / "back"))
    assert (back.epochs, storage_of(back.run)) == (7, str(run.path / "ray" / "back"))
    assert (run.path / "ray" / "back" / run.run_id).is_dir(), "asked for, so kept"
    assert (tmp_path / "new" / run.run_id).is_dir(), "not b3dist's to delete"


def test_a_run_whose_checkpoints_are_lost_begins_anew_elsewhere(run: RunFolder, tmp_path: Path) -> None:
    """Without an epoch; where nothing can be written it stays where it was, and so does one that is driven."""
    (run.path / "ray").rename(tmp_path / "lost")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Not a directory"):
        move_checkpoints(run, str(tmp_path / "file" / "below"))
    with run.driven(), pytest.raises(RunError, match="is being driven"):
        move_checkpoints(run, str(tmp_path / "new"))
    assert STORAGE_OPTION not in RunFolder.open(tmp_path / "runs", run.run_id).settings.options
    moved = move_checkpoints(run, str(tmp_path / "new"))
    assert (moved.epochs, moved.unread) == (0, None)
