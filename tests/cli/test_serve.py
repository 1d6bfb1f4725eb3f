"""`b3dist serve`: what it refuses before anything starts, and how it ends."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome
from tests.serving.desks import Desk, make_desk
from tests.serving.live import LiveEndpoint

B3dist = Callable[..., Outcome]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A lake and two releases of two assets."""
    return make_desk(tmp_path_factory.mktemp("serve"), assets=2)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without a token and without a cluster."""
    monkeypatch.delenv("B3DIST_TOKEN", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def words(desk: Desk, *more: object) -> tuple[object, ...]:
    """A command line that would start the endpoint."""
    return ("serve", "--release", desk.first.release_id, "--releases", desk.releases, "--lake", desk.lake, *more)


def test_another_host_needs_a_token(b3dist: B3dist, desk: Desk) -> None:
    """One sentence, and what to do."""
    done = b3dist(*words(desk, "--host", "0.0.0.0"))
    assert done.exit_code == 1
    assert "no token is set" in done.stderr
    assert "--token-file" in done.stderr or "token file" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--host", "", "the host to listen on is empty"),
        ("--host", "no-such-host.invalid", "there is no host 'no-such-host.invalid'"),
        ("--host", "a..b", "there is no host 'a..b'"),
        ("--cpus-per-replica", "nan", "more than 0 cores, got nan"),
        ("--gpus-per-replica", "-1", "cannot have -1 GPUs"),
        ("--max-queue", "-1", "got a queue of -1"),
        ("--stale-after", "-1", "0 or more, got -1"),
        ("--replicas", "0", "at least 1"),
    ],
)
def test_values_that_cannot_be(b3dist: B3dist, desk: Desk, option: str, value: str, said: str) -> None:
    """One sentence each, before even the release is read."""
    done = b3dist(*words(desk, option, value))
    assert done.exit_code == 1
    assert done.stderr.startswith("b3dist: ")
    assert said in done.stderr.replace("\n", " ")


def test_no_such_release(b3dist: B3dist, desk: Desk) -> None:
    """The nearest one is named; with --json the error is the one object on stdout."""
    done = b3dist("serve", "--release", "x", "--releases", desk.releases, "--lake", desk.lake, "--json")
    assert done.exit_code == 1
    assert "'x'" in done.answer["error"]


def test_no_champion_yet(b3dist: B3dist, desk: Desk) -> None:
    """The default is the champion; without one the command that makes one is told."""
    done = b3dist("serve", "--releases", desk.releases, "--lake", desk.lake)
    assert done.exit_code == 1
    assert "b3dist release promote" in done.stderr


def test_a_damaged_release(b3dist: B3dist, desk: Desk) -> None:
    """Found out by hash before a cluster starts."""
    desk.flip_a_byte(desk.first.release_id)
    try:
        done = b3dist(*words(desk))
    finally:
        desk.flip_a_byte(desk.first.release_id)
    assert done.exit_code == 1
    assert desk.first.release_id in done.stderr
    assert "Traceback" not in done.stderr


def test_no_lake_and_a_damaged_one(b3dist: B3dist, desk: Desk, tmp_path: Path) -> None:
    """Each in one sentence that names the lake."""
    done = b3dist(*words(desk)[:-1], tmp_path / "none")
    assert (done.exit_code, "there is no lake" in done.stderr) == (1, True)
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "manifest.json").write_text("{")
    done = b3dist(*words(desk)[:-1], tmp_path / "lake")
    assert (done.exit_code, "manifest.json is damaged" in done.stderr) == (1, True)


def test_a_port_in_use(b3dist: B3dist, desk: Desk) -> None:
    """Before a cluster starts, naming the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = b3dist(*words(desk, "--port", port))
    assert done.exit_code == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert f"verifying release {desk.first.release_id}" in done.stderr
    assert "starting Ray" not in done.stderr


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly(desk: Desk, tmp_path: Path, number: signal.Signals) -> None:
    """Exit 0, one JSON object on stdout, and no process of it is left."""
    live = LiveEndpoint(desk, "--release", desk.first.release_id, "--json", log=tmp_path / "stderr")
    assert (
        f"curl -H 'Content-Type: application/json' -d '{{\"tickers\": [\"*\"]}}' http://127.0.0.1:{live.port}"
        in live.said
    )
    steps = ["verifying release", "starting Ray", "warming 2 assets", "ready at"]
    assert [live.said.index(step) for step in steps] == sorted(live.said.index(step) for step in steps)
    processes = live.processes()
    assert live.ask("POST", "/v1/predict/bulk", {"tickers": ["*"]})[0] == 200
    exit_code, stdout = live.stop(number)
    assert exit_code == 0
    answer = json.loads(stdout)
    assert (answer["release_id"], answer["swaps"]) == (desk.first.release_id, 0)
    live.wait_gone(processes)


@pytest.mark.ray
@pytest.mark.slow
def test_a_token_is_asked_for(desk: Desk, tmp_path: Path) -> None:
    """With a token file every request needs it, but for the probes; the command never shows it."""
    token = tmp_path / "token"
    token.write_text("a-secret-of-this-test\n")
    live = LiveEndpoint(desk, "--release", desk.first.release_id, "--token-file", str(token), log=tmp_path / "stderr")
    try:
        assert live.ask("GET", "/readyz")[0] == 200
        assert live.ask("GET", "/v1/release")[0] == 401
        with_token = {"Authorization": "Bearer a-secret-of-this-test"}
        assert live.ask("GET", "/v1/release", headers=with_token)[0] == 200
        assert "a-secret-of-this-test" not in live.said
    finally:
        live.stop()
