"""What should be served now: the alias and the lake are looked at again and again.

This notices changes and judges nothing. Whether a release or a lake is sound the replicas find out, who can say so in
their own status, keep what they have, and are asked again later.
"""

import dataclasses
import hashlib
from pathlib import Path

from b3dist.data.lake.manifest import MANIFEST_NAME
from b3dist.errors import ReleaseError
from b3dist.release import ReleaseStore
from b3dist.serving.served import Served


class Watch:
    """The release that was named and the lake, as they are on disk now.

    Args:
        named: what to serve, with the release as the user named it: an id, which never changes, or an alias.
    """

    def __init__(self, named: Served) -> None:
        self._named = named
        self._store = ReleaseStore(named.releases)

    def look(self) -> Served:
        """What should be served now."""
        return dataclasses.replace(
            self._named, release=self._release(), alias=self._alias(), lake_manifest_hash=_hash_of(self._named.lake)
        )

    def _release(self) -> str:
        try:
            return self._store.aliases().get(self._named.release, self._named.release)
        except ReleaseError:  # damaged aliases: the replicas resolve the name too, and say what is wrong
            return self._named.release

    def _alias(self) -> str | None:
        return self._named.release if self._release() != self._named.release else None


def _hash_of(lake: Path) -> str | None:
    """sha256 (hex) of the lake's manifest; None if it cannot be read."""
    try:
        return hashlib.sha256((lake / MANIFEST_NAME).read_bytes()).hexdigest()
    except OSError:
        return None
