"""What survives a power cut: content and names are on the disk only once they were flushed to it."""

import os
from pathlib import Path


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's new names and renames, are on the disk.

    Raises:
        OSError: they cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
