"""RELEASES/: one immutable folder per release, and the aliases.

RELEASES/<release_id>/   weights.pt, predictions.parquet, model_card.md, manifest.json, manifest.sha256
RELEASES/aliases.json    champion, challenger, and what they were before
"""

import difflib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from b3dist.data.durable import flush_to_disk
from b3dist.errors import B3distError, ReleaseError, StorageError
from b3dist.release.aliases import ALIASES, Pointer, locked, read_aliases
from b3dist.release.released import Release
from b3dist.release.seal import CARD, MANIFEST, SEAL, read_manifest, read_verified, seal_of

_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
"""The form of `ReleaseStore.new_id`."""


@dataclass(frozen=True, kw_only=True)
class ReleaseInfo:
    """One line of `release list`."""

    release_id: str
    aliases: tuple[str, ...]
    run_id: str
    created_at: str
    assets: int
    carried_over: int
    refit: bool
    path: str
    problem: str = ""
    """Why it cannot be used, where its manifest is damaged."""


class ReleaseStore:
    """The folder of all releases; it need not exist yet."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).resolve()

    def aliases(self) -> dict[str, str]:
        """Alias -> release id, for the aliases that are set.

        Raises:
            ReleaseError: aliases.json is damaged.
        """
        return read_aliases(self.path).ids()

    def ids(self) -> list[str]:
        """Every release, newest first, also those whose manifest is gone; folders of another kind are passed over."""
        folders = (entry for entry in self.path.glob("[!.]*/") if _ID.fullmatch(entry.name) or _is_release(entry))
        return sorted((entry.name for entry in folders), reverse=True)

    def resolve(self, id_or_alias: str) -> str:
        """The id that an alias points to, or the id itself.

        Raises:
            ReleaseError: no such release, or the alias is not set.
        """
        known, aliases = self.ids(), self.aliases()
        release_id = aliases.get(id_or_alias, id_or_alias)
        if release_id in known:
            return release_id
        if id_or_alias in ALIASES:
            if id_or_alias in aliases:
                raise ReleaseError(
                    f"{id_or_alias} is {release_id}, which is not in {self.path}", hint="b3dist release rollback"
                )
            hint = (
                f"b3dist release promote {known[0]}" if known else "make a release first: b3dist release create RUN_ID"
            )
            raise ReleaseError(f"no release in {self.path} is {id_or_alias}", hint=hint)
        nearest = difflib.get_close_matches(id_or_alias, [*known, *aliases], n=1, cutoff=0.0)
        hint = f"the nearest is {nearest[0]}" if nearest else "make one: b3dist release create RUN_ID"
        raise ReleaseError(f"there is no release {id_or_alias!r} in {self.path}", hint=hint)

    def open(self, id_or_alias: str, *, alias: str | None = None) -> Release:
        """A release read into memory, every file verified by hash.

        Args:
            id_or_alias: the release. That of an alias must have the very manifest that was promoted.
            alias: the alias that was resolved to this id before, if one was.

        Raises:
            ReleaseError: no such release, a file of it is missing or changed, or it is not the one that was promoted.
        """
        from b3dist.release.manifest import open_release  # torch, seconds that `list` does not need

        release = open_release(self.path / self.resolve(id_or_alias))
        self._require_promoted(alias or id_or_alias, release.release_id, release.manifest_sha256)
        return release

    def card(self, id_or_alias: str) -> str:
        """A release's model card, Markdown; of its files only the manifest and the card are read and verified.

        Raises:
            ReleaseError: no such release, or one of the two is missing or changed.
        """
        path = self.path / self.resolve(id_or_alias)
        manifest, digest = read_manifest(path)
        self._require_promoted(id_or_alias, path.name, digest)
        return read_verified(path / CARD, manifest["files"][CARD]).decode()

    def list(self) -> list[ReleaseInfo]:
        """Every release, newest first; their manifests are verified, their weights are not read."""
        pointing: dict[str, tuple[str, ...]] = {}
        for alias, release_id in self.aliases().items():
            pointing[release_id] = (*pointing.get(release_id, ()), alias)
        return [self._info(release_id, pointing.get(release_id, ())) for release_id in self.ids()]

    def new_id(self) -> str:
        """An id for a release made now: the time, then a random suffix, so that names sort by age."""
        return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"

    def commit(self, release_id: str, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Write a release aside and rename it into place; its files are read-only.

        Args:
            release_id: of `new_id`, also in the manifest.
            manifest: holds the hashes of the files.
            files: name -> content of every file but the manifest and its seal.

        Raises:
            StorageError: disk full or not writable; nothing is left.
        """
        text = (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode()
        contents = {**files, MANIFEST: text, SEAL: seal_of(text)}
        with locked(self.path):
            for remains in self.path.glob(".*.tmp"):  # of killed processes: a living one would hold the lock
                shutil.rmtree(remains, ignore_errors=True)
            aside = self.path / f".{release_id}.tmp"
            try:
                aside.mkdir()
                for name, content in contents.items():
                    _write_durably(aside / name, content)
                flush_to_disk(aside)
                aside.rename(self.path / release_id)
                flush_to_disk(self.path)
            except OSError as error:
                raise StorageError(
                    f"cannot write the release {self.path / release_id}: {error.strerror}",
                    hint="check free space and permissions",
                ) from error
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _require_promoted(self, alias: str, release_id: str, manifest_sha256: str) -> None:
        """Compare a release with what aliases.json says of it; nothing to compare where the name is no alias of it."""
        pointer = read_aliases(self.path).current.get(alias)
        if pointer is not None and pointer.release_id == release_id:
            require_same(pointer, manifest_sha256, alias=alias)

    def _info(self, release_id: str, aliases: tuple[str, ...]) -> ReleaseInfo:
        path = self.path / release_id
        try:
            manifest, digest = read_manifest(path)
            for alias in aliases:
                self._require_promoted(alias, release_id, digest)
        except B3distError as error:
            manifest, problem = {"run_id": "", "created_at": "", "assets": {}, "refit": False}, error.message
        else:
            problem = ""
        return ReleaseInfo(
            release_id=release_id,
            aliases=aliases,
            run_id=manifest["run_id"],
            created_at=manifest["created_at"],
            assets=len(manifest["assets"]),
            carried_over=sum(asset["carried_over"] for asset in manifest["assets"].values()),
            refit=manifest["refit"],
            path=str(path),
            problem=problem,
        )


def require_same(pointer: Pointer, manifest_sha256: str, *, alias: str) -> None:
    """Refuse a release that is not, byte for byte, the one that was promoted.

    Raises:
        ReleaseError: its manifest has another hash.
    """
    if manifest_sha256 != pointer.manifest_sha256:
        raise ReleaseError(
            f"release {pointer.release_id} is not the one that was {alias}: its manifest has sha256 {manifest_sha256},"
            f" expected {pointer.manifest_sha256}",
            hint="restore the folder from a copy, or promote another release",
        )


def _is_release(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and (folder / SEAL).is_file()


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    path.chmod(0o444)
