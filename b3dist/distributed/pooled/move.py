"""A pooled run goes on with its checkpoints at another place; the old ones come along where they can be read."""

from typing import NamedTuple

from b3dist.distributed.pooled.checkpoint_copy import copy_checkpoints, epochs_kept
from b3dist.distributed.pooled.checkpoint_storage import check_storage
from b3dist.distributed.pooled.folder import STORAGE_OPTION, remove_own_storage, storage_of
from b3dist.run_folder import RunFolder


class Moved(NamedTuple):
    """A run after its move."""

    run: RunFolder
    epochs: int
    """In the newest checkpoint at the new place; 0: it begins anew, to the same numbers."""
    former: str
    """Where its checkpoints were."""
    unread: str | None
    """Why they could not be read there; None if they could, or if there are none."""


def move_checkpoints(run: RunFolder, storage: str) -> Moved:
    """Keep a run's checkpoints at another place from now on.

    Those in the run's folder are deleted once they are copied, others stay where they were.

    Args:
        run: of kind "pooled".
        storage: absolute path, or URI such as s3://bucket/folder.

    Raises:
        ConfigError: no address of a known kind, or one that holds credentials.
        RunError: it is being driven.
        StorageError: nothing can be written at the new place, or not into the run's folder.
    """
    check_storage(storage)
    with run.driven():
        former = storage_of(run)
        unread = copy_checkpoints(former, storage, run.run_id)
        epochs = epochs_kept(storage, run.run_id)
        moved = run.replace_options({**run.settings.options, STORAGE_OPTION: storage})
        if unread is None:
            remove_own_storage(moved)
    return Moved(run=moved, epochs=epochs, former=former, unread=unread)
