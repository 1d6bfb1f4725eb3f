"""Promoting and rolling back move one file in one step."""

import hashlib
import itertools
import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from b3dist.errors import ReleaseError
from b3dist.release import ReleaseStore, promote, rollback
from b3dist.release.seal import seal_of
from tests.distributed.runs import contents


def test_an_alias_is_one_file(store: ReleaseStore, ids: dict[str, str]) -> None:
    """aliases.json names the champion; its name opens it; the release's own files are not touched."""
    before = contents(store.path)
    moved = promote(store, ids["first"])
    assert (moved.release_id, moved.alias, moved.before, moved.overridden) == (ids["first"], "champion", None, ())
    assert json.loads((store.path / "aliases.json").read_text())["champion"] == ids["first"]
    assert store.open("champion").release_id == ids["first"] == store.resolve("champion")
    assert {name: one for name, one in contents(store.path).items() if "/" in name} == {
        name: one for name, one in before.items() if "/" in name
    }
    promote(store, "champion", alias="challenger")
    assert store.aliases() == {"champion": ids["first"], "challenger": ids["first"]}


def test_a_rollback_returns_the_very_same_bytes(store: ReleaseStore, ids: dict[str, str]) -> None:
    """After two promotions, two steps back; the third has nothing to go back to and changes nothing."""
    promote(store, ids["first"])
    first = contents(store.path / store.resolve("champion"))
    promote(store, ids["second"], margin=1)
    promote(store, ids["second"])  # again: no step of its own
    promote(store, ids["few"], force=True)
    assert rollback(store).release_id == ids["second"]
    moved = rollback(store)
    assert (moved.release_id, moved.before, moved.assets) == (ids["first"], ids["second"], 6)
    assert contents(store.path / store.resolve("champion")) == first
    aliases = (store.path / "aliases.json").read_bytes()
    with pytest.raises(ReleaseError, match="nothing to roll back to: no release was champion before"):
        rollback(store)
    with pytest.raises(ReleaseError, match="no release was challenger before"):
        rollback(store, alias="challenger")
    assert (store.path / "aliases.json").read_bytes() == aliases


def test_a_changed_or_lost_release_is_not_rolled_back_to(store: ReleaseStore, ids: dict[str, str]) -> None:
    """What was champion must be what it was, even if somebody sealed another content; the alias stays."""
    promote(store, ids["first"])
    promote(store, ids["second"], force=True)
    path = store.path / ids["first"]
    kept = {file.name: file.read_bytes() for file in path.iterdir()}
    for file in path.iterdir():
        file.chmod(0o644)
    (path / "manifest.json").write_bytes(kept["manifest.json"] + b"\n")
    with pytest.raises(ReleaseError, match=r"does not match manifest\.sha256"):
        rollback(store)
    digest = hashlib.sha256(kept["manifest.json"] + b"\n").hexdigest()
    (path / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
    assert store.open(ids["first"]).manifest_sha256 == digest
    with pytest.raises(ReleaseError, match="is not the one that was champion"):
        rollback(store)
    shutil.rmtree(path)
    with pytest.raises(ReleaseError, match=f"there is no release '{ids['first']}'"):
        rollback(store)
    assert store.aliases() == {"champion": ids["second"]}


def test_a_failing_mirror_costs_nothing(store: ReleaseStore, ids: dict[str, str]) -> None:
    """The alias moves, and what the mirror said is told; the next promotion tells it everything again."""
    told: list[Mapping[str, Any]] = []

    def mirror(current: Mapping[str, Any]) -> None:
        told.append({alias: pointer.release_id for alias, pointer in current.items()})
        if len(told) == 1:
            raise ConnectionError("no server")

    moved = promote(store, ids["first"], mirror=mirror)
    assert moved.mirror_error == "ConnectionError: no server"
    assert store.resolve("champion") == ids["first"]
    assert promote(store, ids["bad"], alias="challenger", mirror=mirror).mirror_error is None
    assert told[1] == {"champion": ids["first"], "challenger": ids["bad"]}


def test_a_slow_mirror_makes_nobody_wait(store: ReleaseStore, ids: dict[str, str]) -> None:
    """While MLflow does not answer, another promotion goes through; what is mirrored last is what the aliases are."""
    told: list[dict[str, str]] = []
    order: list[str] = []

    def slow(current: Mapping[str, Any]) -> None:
        if not told:
            order.append("mirror")
            other = threading.Thread(target=promote, args=(store, ids["second"]), kwargs={"alias": "challenger"})
            other.start()
            other.join(timeout=300)
            assert not other.is_alive()
        told.append({alias: pointer.release_id for alias, pointer in current.items()})

    moved = promote(store, ids["first"], mirror=slow, on_moved=lambda one: order.append(one.release_id))
    assert moved.mirror_error is None
    assert order == [ids["first"], "mirror"]
    assert told == [{"champion": ids["first"]}, {"champion": ids["first"], "challenger": ids["second"]}]


def test_an_alias_opens_what_was_promoted(store: ReleaseStore, ids: dict[str, str]) -> None:
    """Another manifest under the champion's id is refused by its alias, sealed or not; its id can be promoted anew."""
    promote(store, ids["first"])
    path = store.path / ids["first"]
    for file in path.iterdir():
        file.chmod(0o644)
    manifest = (path / "manifest.json").read_bytes() + b"\n"
    (path / "manifest.json").write_bytes(manifest)
    (path / "manifest.sha256").write_bytes(seal_of(manifest))
    for read in (
        lambda: store.open("champion"),
        lambda: store.open(ids["first"], alias="champion"),
        lambda: store.card("champion"),
        lambda: promote(store, "champion", alias="challenger"),
    ):
        with pytest.raises(ReleaseError, match="is not the one that was champion"):
            read()
    assert {info.release_id: info.problem for info in store.list() if info.problem}.keys() == {ids["first"]}
    with pytest.raises(ReleaseError, match="the champion to compare it with cannot be read"):
        promote(store, ids["second"])
    promote(store, ids["first"])
    assert store.open("champion").manifest_sha256 == hashlib.sha256(manifest).hexdigest()


def test_promotions_at_once_lose_nothing(store: ReleaseStore, ids: dict[str, str]) -> None:
    """Eight at a time, one after the other: the history holds every one of them."""
    wanted = [ids["first"], ids["second"]] * 4
    threads = [threading.Thread(target=promote, args=(store, one), kwargs={"alias": "challenger"}) for one in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = json.loads((store.path / "aliases.json").read_text())
    history = [one["release_id"] for one in content["previous"]["challenger"]] + [content["challenger"]]
    assert all(left != right for left, right in itertools.pairwise(history))
    assert set(history) == {ids["first"], ids["second"]}
    for expected in reversed(history[:-1]):
        rollback(store, alias="challenger")
        assert store.resolve("challenger") == expected


def damaged_pointer(**fields: Any) -> str:
    """An aliases.json whose champion has other fields."""
    pointer = {"release_id": "a", "manifest_sha256": "b", "promoted_at": "c", **fields}
    return json.dumps({"schema_version": 1, "current": {"champion": pointer}, "previous": {}})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema_version": 1}',
        '{"schema_version": 9}',
        "[" * 100_000,
        '{"schema_version": 1, "current": {"champion": null}, "previous": {}}',
        '{"schema_version": 1, "current": {}, "previous": {"champion": ""}}',
        '{"schema_version": 1, "current": {}, "previous": {"champion": {}}}',
        damaged_pointer(release_id=None),
        damaged_pointer(release_id=["x"]),
        damaged_pointer(release_id=""),
        damaged_pointer(release_id="\ud800"),
        damaged_pointer(manifest_sha256=1),
        damaged_pointer(promoted_at={}),
        damaged_pointer(more=1),
    ],
)
def test_damaged_aliases_are_said(text: str, tmp_path: Path) -> None:
    """A torn, foreign or edited aliases.json is named in one sentence, with what to do."""
    (tmp_path / "aliases.json").write_text(text)
    with pytest.raises(ReleaseError, match=r"aliases\.json (is damaged|has schema version 9)"):
        ReleaseStore(tmp_path).list()
