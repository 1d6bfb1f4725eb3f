"""RELEASES/aliases.json: which release is champion and which challenger, replaced by one rename.

{"schema_version": 1, "champion": ID, "challenger": ID, "previous": {"champion": [{...}], "challenger": []}}

`previous` is what `rollback` goes back to, newest last, each with the hash of its manifest.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

from b3dist.errors import ReleaseError, StorageError
from b3dist.run_folder import replace_json

Alias = Literal["champion", "challenger"]
ALIASES: tuple[Alias, ...] = get_args(Alias)
FILE = "aliases.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """A release that an alias points, or once pointed, to."""

    release_id: str
    manifest_sha256: str
    promoted_at: str


@dataclass(frozen=True, kw_only=True)
class Aliases:
    """aliases.json; immutable, changed by `pointing_to` and `rolled_back`."""

    current: Mapping[str, Pointer] = field(default_factory=dict)
    previous: Mapping[str, tuple[Pointer, ...]] = field(default_factory=dict)
    """Per alias, newest last."""

    def ids(self) -> dict[str, str]:
        """Alias -> release id."""
        return {alias: pointer.release_id for alias, pointer in self.current.items()}

    def pointing_to(self, alias: Alias, release_id: str, manifest_sha256: str) -> Self:
        """With an alias moved to a release; the one it leaves becomes the newest of its history."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        pointer = Pointer(release_id=release_id, manifest_sha256=manifest_sha256, promoted_at=now)
        left = (self.current[alias],) if alias in self.current else ()
        previous = {**self.previous, alias: (*self.previous.get(alias, ()), *left)}
        return type(self)(current={**self.current, alias: pointer}, previous=previous)

    def rolled_back(self, alias: Alias) -> Self:
        """With an alias moved back to the release it pointed to before.

        Raises:
            ReleaseError: there is none.
        """
        history = self.previous.get(alias, ())
        if not history:
            now = f"it is {self.current[alias].release_id}" if alias in self.current else "there is none"
            raise ReleaseError(
                f"there is nothing to roll back to: no release was {alias} before ({now})",
                hint=f"b3dist release promote ID --alias {alias} names one",
            )
        return type(self)(current={**self.current, alias: history[-1]}, previous={**self.previous, alias: history[:-1]})

    def to_dict(self) -> dict[str, Any]:
        """What aliases.json holds."""
        return {
            "schema_version": SCHEMA_VERSION,
            **self.ids(),
            "current": {alias: vars(pointer) for alias, pointer in self.current.items()},
            "previous": {alias: [vars(one) for one in history] for alias, history in self.previous.items()},
        }


def read_aliases(releases: Path) -> Aliases:
    """The aliases; none where there is no file.

    Raises:
        ReleaseError: the file is damaged or of another schema version.
    """
    path = releases / FILE
    try:
        content = json.loads(path.read_bytes())
        if content["schema_version"] != SCHEMA_VERSION:
            raise ReleaseError(
                f"{path} has schema version {content['schema_version']}, expected {SCHEMA_VERSION}",
                hint="use the version of b3dist that wrote it",
            )
        return Aliases(
            current={alias: _pointer(one) for alias, one in content["current"].items()},
            previous={
                alias: tuple(_pointer(one) for one in _require(list, history))
                for alias, history in content["previous"].items()
            },
        )
    except (FileNotFoundError, NotADirectoryError):
        return Aliases()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReleaseError(
            f"{path} is damaged: {error!r}", hint="delete it and promote again: the releases are untouched"
        ) from error


def _pointer(entry: Any) -> Pointer:
    pointer = Pointer(**_require(dict, entry))
    for name, value in vars(pointer).items():
        if not (_require(str, value) and value.isascii()):
            raise ValueError(f"{name} is {value!r}, expected a name")
    return pointer


def _require[T](kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {value!r:.100}")
    return value


def write_aliases(releases: Path, aliases: Aliases) -> None:
    """Replace aliases.json by one rename; only while holding `locked`.

    Raises:
        StorageError: it cannot be written; the old one is still there.
    """
    try:
        replace_json(releases / FILE, aliases.to_dict())
    except OSError as error:
        raise StorageError(
            f"cannot write {releases / FILE}: {error.strerror}; the aliases are as before",
            hint="check free space and permissions",
        ) from error


@contextlib.contextmanager
def locked(releases: Path) -> Iterator[None]:
    """Be the only one who writes into a folder of releases; waits its turn; goes with the process, however that dies.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        releases.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(releases / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(
            f"cannot write into {releases}: {error.strerror}", hint="choose another folder with --releases"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
