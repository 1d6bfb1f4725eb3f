"""Move an alias to a release, or back, in one step; MLflow is told afterwards and may fail without harm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from b3dist.errors import ConfigError, ReleaseError
from b3dist.release.aliases import Alias, Pointer, locked, read_aliases, write_aliases
from b3dist.release.gate import DEFAULT_MARGIN, Comparison, compare_releases
from b3dist.release.released import Release
from b3dist.release.store import ReleaseStore, require_same

Mirror = Callable[[Mapping[str, Pointer]], None]
"""Told what every alias points to now; whatever it raises becomes a warning."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """An alias that was moved."""

    release_id: str
    alias: Alias
    before: str | None
    """The release it pointed to."""
    assets: int
    comparison: Comparison | None
    """With the champion; None where there was none to compare with."""
    overridden: tuple[str, ...]
    """Objections that --force overrode."""
    mirror_error: str | None
    """Why MLflow does not say the same; None: it does, or was not asked to."""


def promote(
    store: ReleaseStore,
    release_id: str,
    *,
    alias: Alias = "champion",
    margin: float = DEFAULT_MARGIN,
    force: bool = False,
    mirror: Mirror | None = None,
    on_moved: Callable[[Moved], None] | None = None,
) -> Moved:
    """Make a release champion or challenger.

    Args:
        store: the folder of all releases.
        release_id: a release, or an alias of one.
        alias: only a champion has to be no worse than the one before.
        margin: how much worse either score may be, see b3dist.release.gate.
        force: promote in spite of every objection.
        mirror: told afterwards, when the next promotion need not wait for it.
        on_moved: called once the alias has moved, before the mirror is told.

    Raises:
        ReleaseError: no such release, it is damaged, or it is worse than the champion; the alias is as before.
        ConfigError: a negative margin.
        StorageError: aliases.json cannot be written; it is as before.
    """
    if not margin >= 0:
        raise ConfigError(f"the margin must be at least 0, got {margin}", hint=f"--margin {DEFAULT_MARGIN}")
    store.resolve(release_id)
    with locked(store.path):
        aliases = read_aliases(store.path)
        candidate = store.open(release_id)
        champion = aliases.current.get("champion")
        comparison, objections = _judge(store, champion, candidate, margin)
        if alias != "champion":
            objections = ()
        if objections and not force:
            raise ReleaseError(
                f"release {candidate.release_id} is not promoted: {'; '.join(objections)}",
                hint="--force promotes it all the same, --margin allows more, --alias challenger asks for nothing",
            )
        before = aliases.current.get(alias)
        promoted = (before.release_id, before.manifest_sha256) if before else None
        if promoted != (candidate.release_id, candidate.manifest_sha256):
            aliases = aliases.pointing_to(alias, candidate.release_id, candidate.manifest_sha256)
            write_aliases(store.path, aliases)
        moved = Moved(
            release_id=candidate.release_id,
            alias=alias,
            before=before.release_id if before else None,
            assets=len(candidate.assets),
            comparison=comparison,
            overridden=objections,
            mirror_error=None,
        )
    return _told(store, moved, mirror, on_moved)


def rollback(
    store: ReleaseStore,
    *,
    alias: Alias = "champion",
    mirror: Mirror | None = None,
    on_moved: Callable[[Moved], None] | None = None,
) -> Moved:
    """Move an alias back to the release it pointed to before: the very same bytes, verified by hash.

    Args:
        store: the folder of all releases.
        alias: which.
        mirror: told afterwards.
        on_moved: called before the mirror is told.

    Raises:
        ReleaseError: there was none before, or it is gone or was changed since; the alias is as before.
        StorageError: aliases.json cannot be written; it is as before.
    """
    with locked(store.path):
        aliases = read_aliases(store.path)
        before = aliases.current.get(alias)
        aliases = aliases.rolled_back(alias)
        pointer = aliases.current[alias]
        release = store.open(pointer.release_id)
        require_same(pointer, release.manifest_sha256, alias=alias)
        write_aliases(store.path, aliases)
        moved = Moved(
            release_id=pointer.release_id,
            alias=alias,
            before=before.release_id if before else None,
            assets=len(release.assets),
            comparison=None,
            overridden=(),
            mirror_error=None,
        )
    return _told(store, moved, mirror, on_moved)


def _judge(
    store: ReleaseStore, champion: Pointer | None, candidate: Release, margin: float
) -> tuple[Comparison | None, tuple[str, ...]]:
    """The comparison with the champion, and what speaks against the candidate."""
    if champion is None or champion.release_id == candidate.release_id:
        return None, ()
    try:
        comparison = compare_releases(store.open("champion"), candidate, margin=margin)
    except ReleaseError as error:
        return None, (f"the champion to compare it with cannot be read: {error.message}",)
    return comparison, comparison.objections


def _told(store: ReleaseStore, moved: Moved, mirror: Mirror | None, on_moved: Callable[[Moved], None] | None) -> Moved:
    """Tell the mirror what the aliases are now, without the lock: a server that is down makes nobody wait.

    Another process may move an alias meanwhile. So they are read here, not taken from the move, and again afterwards:
    who told something old, because its words were slower, tells the new.
    """
    if on_moved is not None:
        on_moved(moved)
    if mirror is None:
        return moved
    told = None
    try:
        while (current := read_aliases(store.path).current) != told:
            mirror(current)
            told = current
    except Exception as error:  # noqa: BLE001  MLflow's, SQLAlchemy's and the network's errors share no base
        return replace(moved, mirror_error=f"{type(error).__name__}: {error}")
    return moved
