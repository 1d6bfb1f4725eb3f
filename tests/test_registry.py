"""The registered model's aliases follow aliases.json, in a real sqlite store."""

from pathlib import Path
from typing import Any

import pytest

from b3dist.tracking.registry import MODEL, RELEASE_TAG, RegistryError, mirror_aliases
from b3dist.tracking.store import connect

KNOWN = ("champion", "challenger")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for the module, since making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"


def pointed(uri: str) -> dict[str, Any]:
    """Alias -> tags of the version it points to."""
    client = connect(uri)
    aliases = client.get_registered_model(MODEL).aliases
    return {alias: client.get_model_version(MODEL, str(version)).tags for alias, version in aliases.items()}


def test_aliases_follow(uri: str, tmp_path: Path) -> None:
    """One version per release, however often it is promoted; an alias that is no more is removed."""
    for aliases in (
        {"champion": ("first", "aa")},
        {"champion": ("second", "bb"), "challenger": ("first", "aa")},
        {"champion": ("first", "aa")},
    ):
        mirror_aliases(aliases, uri=uri, releases=tmp_path, known=KNOWN)
        found = pointed(uri)
        assert {alias: tags[RELEASE_TAG] for alias, tags in found.items()} == {
            alias: release_id for alias, (release_id, _) in aliases.items()
        }
    versions = connect(uri).search_model_versions(f"name = '{MODEL}'")
    assert {(one.source, one.tags["b3dist.manifest_sha256"]) for one in versions} == {
        ((tmp_path / "first").as_uri(), "aa"),
        ((tmp_path / "second").as_uri(), "bb"),
    }


def test_a_store_that_fails_is_named_without_its_password(tmp_path: Path) -> None:
    """One line, which a warning can show."""
    uri = f"sqlite://user:secret@/{tmp_path}/absent/mlflow.db"
    with pytest.raises(RegistryError) as caught:
        mirror_aliases({}, uri=uri, releases=tmp_path, known=KNOWN)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
