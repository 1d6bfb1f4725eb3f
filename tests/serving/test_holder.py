"""A new release or lake is taken over whole, or the old one serves on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from b3dist.release import ReleaseStore, create_release
from b3dist.run_folder import RunFolder
from b3dist.serving.holder import Holder
from b3dist.training.bundle import serialise_weights
from tests.serving.desks import Desk, make_desk


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Trained once; no test changes it."""
    return make_desk(tmp_path_factory.mktemp("holder"), assets=3)


@pytest.fixture
def desk(made: Desk, tmp_path: Path) -> Desk:
    """A copy that a test may change."""
    return made.copied_to(tmp_path / "desk")


def predictions(holder: Holder) -> list[dict[str, Any]]:
    """What is answered for every asset now."""
    assert holder.current is not None
    return list(holder.current.scorer.score_all(None, None)[0].to_pylist())


def test_a_release_is_taken_over_and_swapped(desk: Desk) -> None:
    """Each take-over answers from the release it names, with other numbers."""
    holder = Holder()
    assert holder.status()["release_id"] is None
    assert holder.take_over(desk.user_config())
    before = predictions(holder)
    assert holder.take_over(desk.user_config(desk.second.release_id))
    after = predictions(holder)
    assert {row["release_id"] for row in before} == {desk.first.release_id}
    assert {row["release_id"] for row in after} == {desk.second.release_id}
    assert all(old["p_hold"] != new["p_hold"] for old, new in zip(before, after, strict=True))
    status = holder.status()
    assert (status["taken_over"], status["refused"], status["last_error"]) == (2, 0, None)
    assert status["newest_session"].startswith("2017-12-")
    json.dumps(status, allow_nan=False)


def test_an_alias_is_resolved(desk: Desk) -> None:
    """A release named by alias is found, and the alias shown."""
    desk.promote(desk.second.release_id)
    holder = Holder()
    assert holder.take_over(desk.user_config("champion"))
    assert holder.current is not None
    assert (holder.current.release.release_id, holder.current.alias) == (desk.second.release_id, "champion")


def test_a_release_with_a_flipped_byte_is_refused(desk: Desk) -> None:
    """The old one serves on, bit for bit, and the reason is told; the next sound one clears it."""
    holder = Holder()
    holder.take_over(desk.user_config())
    before = predictions(holder)
    desk.flip_a_byte(desk.second.release_id)
    assert not holder.take_over(desk.user_config(desk.second.release_id))
    assert predictions(holder) == before
    assert str(desk.releases) in str(holder.last_error)
    assert str(holder.shown_error).startswith(f"{desk.releases.name}/{desk.second.release_id}/weights.pt has sha256")
    desk.flip_a_byte(desk.second.release_id)
    assert holder.take_over(desk.user_config(desk.second.release_id))
    assert holder.last_error is holder.shown_error is None


def test_a_release_that_answers_nan_is_refused(desk: Desk) -> None:
    """Weights that are NaN pass every hash, and are found out when they are warmed."""
    runs = desk.lake.parent / "runs"
    run = RunFolder.open(runs, desk.first.manifest["run_id"])
    folder = sorted(run.assets.iterdir())[0]
    weights = torch.load(folder / "model.pt", weights_only=True)
    weights["action_head.bias"][:] = float("nan")
    content = serialise_weights(weights)
    facts = json.loads((folder / "bundle.json").read_text())
    facts["model_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "model.pt").write_bytes(content)
    (folder / "bundle.json").write_text(json.dumps(facts))
    release = create_release(ReleaseStore(desk.releases), run)
    holder = Holder()
    holder.take_over(desk.user_config())
    assert not holder.take_over(desk.user_config(release.release_id))
    assert holder.current is not None
    assert holder.current.release.release_id == desk.first.release_id
    assert holder.last_error is not None
    assert "NaN" in holder.last_error
    assert folder.name in holder.last_error


def test_new_sessions_are_taken_over(desk: Desk) -> None:
    """The same release on a lake that grew answers from the newest sessions."""
    holder = Holder()
    holder.take_over(desk.user_config())
    assert holder.current is not None
    before = holder.current.lake.manifest_hash
    desk.ingest_newest_year()
    assert holder.current.newest_session.year == 2017
    assert holder.take_over(desk.user_config())
    assert holder.current.lake.manifest_hash != before
    assert holder.current.newest_session.isoformat() == "2018-12-28"
    assert max(row["session"] for row in predictions(holder)).isoformat() == "2018-12-28"


def test_a_damaged_lake_is_refused(desk: Desk) -> None:
    """What is resident serves on when the lake's manifest is no JSON."""
    holder = Holder()
    holder.take_over(desk.user_config())
    (desk.lake / "manifest.json").write_text("{")
    assert not holder.take_over(desk.user_config())
    assert holder.current is not None
    assert "manifest.json" in str(holder.last_error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"relaese": "x"}, "relaese"),
        ({"lake": ""}, "lacks lake"),
        ({"lake": "$B3DIST_NO_SUCH_VARIABLE/lake"}, "$B3DIST_NO_SUCH_VARIABLE"),
        ({"release": 3}, "3"),
        ({"which": "best"}, "'best'"),
        ({"stale_after": -1}, "-1"),
        ({"lake": "/no/such/lake"}, "/no/such/lake"),
    ],
)
def test_a_wrong_configuration_is_told_and_never_raises(desk: Desk, change: dict[str, Any], said: str) -> None:
    """Whatever is in user_config, take_over returns; last_error names the fault."""
    holder = Holder()
    assert not holder.take_over({**desk.user_config(), **change})
    assert holder.current is None
    assert said in str(holder.last_error)


def test_what_is_no_configuration_never_raises() -> None:
    """Serve passes on whatever the config file holds."""
    holder = Holder()
    for nonsense in (None, [], "x", {1: 2}, {"releases": None}):
        assert not holder.take_over(nonsense)  # type: ignore[arg-type]
    assert holder.refused == 5


def test_a_replica_without_any_release_takes_the_fallback(desk: Desk) -> None:
    """A replica that starts while a broken release is asked for serves the last good one and tells the reason."""
    holder = Holder()
    desk.flip_a_byte(desk.first.release_id)
    assert not holder.take_over(desk.user_config(fallback=desk.second.release_id))
    assert holder.current is not None
    assert holder.current.release.release_id == desk.second.release_id
    assert "weights.pt" in str(holder.last_error)
    serving = holder.current
    assert not holder.take_over(desk.user_config(fallback=desk.second.release_id))
    assert holder.current is serving


def test_paths_may_name_environment_variables(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """serve/config.yaml names the folders by variables of the cluster's environment."""
    monkeypatch.setenv("B3DIST_LAKE", str(desk.lake))
    assert Holder().take_over(desk.user_config(lake="$B3DIST_LAKE"))
