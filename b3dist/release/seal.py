"""What a release's folder holds, and reading its manifest verified. Imports no torch: who lists releases needs none."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from b3dist.errors import ReleaseError

WEIGHTS: Final = "weights.pt"
PREDICTIONS: Final = "predictions.parquet"
CARD: Final = "model_card.md"
MANIFEST: Final = "manifest.json"
SEAL: Final = "manifest.sha256"

SCHEMA_VERSION: Final = 1
RESTORE: Final = "restore the folder from a copy, or create the release again"
"""What to do about a damaged release."""


def seal_of(manifest: bytes) -> bytes:
    """The content of manifest.sha256, as `sha256sum -c` reads it."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def read_manifest(path: Path) -> tuple[dict[str, Any], str]:
    """A release's manifest and the sha256 of its bytes, verified against its seal.

    Raises:
        ReleaseError: missing, changed or of another schema version.
    """
    raw, seal = read_file(path / MANIFEST), read_file(path / SEAL)
    if seal != seal_of(raw):
        raise ReleaseError(f"{path / MANIFEST} does not match {SEAL}: one of the two was changed", hint=RESTORE)
    try:
        manifest: dict[str, Any] = json.loads(raw)
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ReleaseError(f"{path / MANIFEST} is no manifest: {error!r}", hint=RESTORE) from error
    if version != SCHEMA_VERSION:
        raise ReleaseError(
            f"{path / MANIFEST} has schema version {version}, expected {SCHEMA_VERSION}",
            hint="use the version of b3dist that made it, or create the release again",
        )
    return manifest, hashlib.sha256(raw).hexdigest()


def read_file(path: Path) -> bytes:
    """A file of a release.

    Raises:
        ReleaseError: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"{path.parent} is no complete release: {path.name}: {error.strerror}", hint=RESTORE
        ) from error


def read_verified(path: Path, expected: str) -> bytes:
    """A file of a release whose sha256 the manifest says.

    Raises:
        ReleaseError: it is missing or was changed.
    """
    content = read_file(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise ReleaseError(f"{path} has sha256 {digest}, expected {expected}: the file was changed", hint=RESTORE)
    return content
