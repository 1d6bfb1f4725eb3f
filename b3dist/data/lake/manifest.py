"""The lake's manifest: what is in the lake, replaced by one rename."""

import contextlib
import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final, Self

from b3dist.data.durable import flush_to_disk
from b3dist.data.schema import SCHEMA_VERSION
from b3dist.errors import LakeError, StorageError

MANIFEST_NAME: Final = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One ingested COTAHIST file."""

    name: str
    sha256: str
    records: int
    """Quote records (type 01) in the file."""
    kept: int
    """Records that belong to the universe."""
    generated: date
    """Header date."""
    first_session: date | None
    last_session: date | None

    @property
    def rank(self) -> tuple[date, int, str]:
        """Of two files with the same session, the one with the higher rank holds it.

        Later generated wins; B3 makes daily, monthly and yearly files on the same day: then the larger, then the hash.
        """
        return self.generated, self.records, self.sha256


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a reader needs to know; paths are relative to the lake."""

    universe: str
    generation: int = 0
    """Counts the changes of the lake; new files carry it in their names."""
    files: tuple[SourceFile, ...] = ()
    parquet_files: tuple[str, ...] = ()
    """Live bar files, one per year, in order of years."""
    index: dict[str, str] = field(default_factory=dict)
    """Live sidecar files: positions, sessions, events."""
    inputs: dict[str, str] = field(default_factory=dict)
    """What the user gave and later ingests keep applying: events, renames."""
    classes: dict[str, int] = field(default_factory=dict)
    """Bars by class."""
    previous: tuple[str, ...] = ()
    """Files of the generation before, kept for readers that opened the lake before this one appeared."""

    @property
    def live(self) -> tuple[str, ...]:
        """All files this generation consists of."""
        return (*self.parquet_files, *self.index.values(), *self.inputs.values())

    def to_bytes(self) -> bytes:
        """The JSON text."""
        content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return (json.dumps(content, indent=1, default=date.isoformat) + "\n").encode()

    @classmethod
    def from_bytes(cls, raw: bytes, *, path: Path) -> Self:
        """The manifest in a JSON text read from `path`.

        Raises:
            LakeError: the text is no manifest, or one of another schema version.
        """
        try:
            content: dict[str, Any] = json.loads(raw)
            version = content.pop("schema_version")
            if version == SCHEMA_VERSION:
                return cls._from_content(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LakeError(
                f"{path} is damaged: {error!r}", hint="restore it, or ingest the files into a new lake"
            ) from error
        raise LakeError(
            f"{path} has schema version {version!r}, this b3dist reads {SCHEMA_VERSION}",
            hint="ingest the files into a new lake",
        )

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> Self:
        files = tuple(
            SourceFile(**{key: _date_or(key, value) for key, value in entry.items()}) for entry in content.pop("files")
        )
        if not {"positions", "sessions", "events"} <= content["index"].keys():
            raise KeyError("index")
        lists: dict[str, Any] = {name: tuple(content.pop(name)) for name in ("parquet_files", "previous")}
        return cls(files=files, **lists, **content)


def _date_or(key: str, value: Any) -> Any:
    is_date = key in ("generated", "first_session", "last_session") and value is not None
    return date.fromisoformat(value) if is_date else value


def read_manifest(lake: Path) -> tuple[Manifest, str]:
    """The manifest of a lake and the sha256 (hex) of its bytes.

    Raises:
        LakeError: there is no lake, or its manifest is damaged or of another version.
    """
    path = lake / MANIFEST_NAME
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise LakeError(f"there is no lake at {lake}", hint=f"make one: b3dist ingest SRC --lake {lake}") from None
    return Manifest.from_bytes(raw, path=path), hashlib.sha256(raw).hexdigest()


def commit_manifest(lake: Path, manifest: Manifest) -> None:
    """Make the manifest the lake's, by one rename after everything it names is on disk.

    Raises:
        StorageError: it cannot be written; the lake is as before.
    """
    aside = lake / f"{MANIFEST_NAME}.new"
    try:
        with aside.open("wb") as stream:
            stream.write(manifest.to_bytes())
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(lake / MANIFEST_NAME)
        flush_to_disk(lake)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {aside}: {error.strerror or error}; the lake is unchanged",
            hint="check permissions and free space, then run the same command again",
        ) from error
