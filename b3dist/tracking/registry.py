"""The registered model `b3dist`: one version per promoted release, its aliases a copy of aliases.json.

The releases' own folder stays the truth. Each call states all aliases, so the next makes good for one that failed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from b3dist.tracking.store import connect, without_password

MODEL = "b3dist"
RELEASE_TAG, SHA256_TAG = "b3dist.release_id", "b3dist.manifest_sha256"


class RegistryError(Exception):
    """The registry did not take the aliases; the message has no password in it."""


def mirror_aliases(pointed: Mapping[str, tuple[str, str]], *, uri: str, releases: Path, known: tuple[str, ...]) -> None:
    """Make the registered model's aliases those of a folder of releases.

    Args:
        pointed: alias -> (release id, sha256 of its manifest).
        uri: tracking URI of the store that holds the registry.
        releases: the folder of all releases; a version's source is the release's folder in it.
        known: every alias there can be: those not pointed to are removed.

    Raises:
        RegistryError: the store does not take it.
    """
    try:
        _mirror(connect(uri), pointed, releases=releases, known=known)
    except Exception as error:  # MLflow's, SQLAlchemy's and the network's errors share no base
        text = next(iter(str(error).splitlines()), "")
        raise RegistryError(without_password(f"{without_password(uri)}: {type(error).__name__}: {text}")) from error


def _mirror(client: Any, pointed: Mapping[str, tuple[str, str]], *, releases: Path, known: tuple[str, ...]) -> None:
    if not _is_registered(client):
        try:
            client.create_registered_model(MODEL, description="Releases of a whole fleet, one version per release.")
        except Exception:
            if not _is_registered(client):  # no other process was first
                raise
    versions = {version.tags.get(RELEASE_TAG): version.version for version in _all_versions(client)}
    present = client.get_registered_model(MODEL).aliases
    for alias in known:
        if alias not in pointed:
            if alias in present:
                client.delete_registered_model_alias(MODEL, alias)
            continue
        release_id, digest = pointed[alias]
        if release_id not in versions:
            tags = {RELEASE_TAG: release_id, SHA256_TAG: digest}
            source = (releases / release_id).resolve().as_uri()
            versions[release_id] = client.create_model_version(MODEL, source, tags=tags).version
        client.set_registered_model_alias(MODEL, alias, versions[release_id])


def _is_registered(client: Any) -> bool:
    return bool(client.search_registered_models(f"name = '{MODEL}'"))


def _all_versions(client: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{MODEL}'", max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
