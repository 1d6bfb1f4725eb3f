"""What is deployed, what is refused before anything starts, and what following an alias and a lake does."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from b3dist.errors import ConfigError, ServingError
from b3dist.serving import follow
from b3dist.serving.deploy import EndpointOptions, parse_replicas, require_free_port, serve_config
from b3dist.serving.follow import Follower
from b3dist.serving.holder import Holder
from b3dist.serving.served import Served
from b3dist.serving.watch import Watch
from tests.serving.desks import Desk, make_desk
from tests.serving.live import PATIENCE_S, Connection, command_of, free_port

CONFIG_FILE = Path(__file__).parents[2] / "serve" / "config.yaml"


class InProcess:
    """An endpoint of one real holder in this process, which takes over at once."""

    def __init__(self) -> None:
        self.holder = Holder()
        self.deployed: list[Served] = []

    def deploy(self, served: Served) -> None:
        """Take over at once."""
        self.deployed.append(served)
        self.holder.take_over(served.to_user_config())

    def statuses(self) -> list[dict[str, Any]]:
        """Of the one holder."""
        return [self.holder.status()]

    def wait_until_up(self) -> None:
        """It is."""

    def is_running(self) -> bool:
        """It does."""
        return True

    def num_replicas(self) -> int:
        """This one."""
        return 1


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without a token and without a cluster."""
    monkeypatch.delenv("B3DIST_TOKEN", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Trained once; no test changes it."""
    return make_desk(tmp_path_factory.mktemp("deploy"), assets=2)


@pytest.fixture
def desk(made: Desk, tmp_path: Path) -> Desk:
    """A copy that a test may change."""
    return made.copied_to(tmp_path / "desk")


def following(desk: Desk, release: str) -> tuple[InProcess, Follower, list[str]]:
    """A started follower, its endpoint, and what it says."""
    endpoint, said = InProcess(), list[str]()
    named = Served(releases=desk.releases, release=release, lake=desk.lake)
    follower = Follower(endpoint, Watch(named), say=said.append)
    follower.start()
    return endpoint, follower, said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_another_host_than_loopback_needs_a_token(host: str, no_token: None, tmp_path: Path) -> None:
    """Refused without a token; accepted with one."""
    with pytest.raises(ConfigError, match="no token is set"):
        EndpointOptions(host=host)
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    assert EndpointOptions(host=host, token_file=token).has_token


def test_haproxy_needs_one_on_any_host(no_token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve's HAProxy listens on all interfaces."""
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    with pytest.raises(ConfigError, match="no token is set"):
        EndpointOptions()


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1", True),
        ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "0", False),
        ("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", "0", True),
        ("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", "1", False),
    ],
)
def test_serve_that_cannot_be_asked_is_refused(
    no_token: None, monkeypatch: pytest.MonkeyPatch, name: str, value: str, refused: bool
) -> None:
    """Before a cluster starts: the replicas' state would be asked for outside an event loop."""
    monkeypatch.setenv(name, value)
    if refused:
        with pytest.raises(ConfigError, match=f"{name}={value} in the environment") as caught:
            EndpointOptions()
        assert f"unset {name}" in caught.value.hint
    else:
        EndpointOptions()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_none(host: str, no_token: None) -> None:
    """The default is open to this machine only."""
    assert not EndpointOptions(host=host).has_token


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replicas": 0}, "got 0"),
        ({"replicas": (3, 2)}, "(3, 2)"),
        ({"replicas": 1000}, "do not fit"),
        ({"cpus_per_replica": float("nan")}, "got nan"),
        ({"cpus_per_replica": -1.0}, "got -1"),
        ({"cpus_per_replica": float("inf"), "address": "10.0.0.1:6379"}, "got inf"),
        ({"gpus_per_replica": -1.0}, "cannot have -1 GPUs"),
        ({"gpus_per_replica": float("nan")}, "cannot have nan GPUs"),
        ({"gpus_per_replica": 1.5}, "got 1.5"),
        ({"max_queue": -1}, "got a queue of -1"),
        ({"host": ""}, "the host to listen on is empty"),
        ({"host": " "}, "the host to listen on is empty"),
        ({"port": 0}, "got 0"),
        ({"port": 65536}, "got 65536"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str, no_token: None) -> None:
    """Before anything starts, and naming the value."""
    with pytest.raises(ConfigError) as error:
        EndpointOptions(**options)
    assert said in error.value.message


def test_a_token_of_the_environment_does_not_reach_another_cluster(
    no_token: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas there would come up open, so it is refused."""
    monkeypatch.setenv("B3DIST_TOKEN", "secret-token")
    with pytest.raises(ConfigError, match="token"):
        EndpointOptions(address="10.0.0.1:6379")


def test_replicas_are_a_number_or_a_range() -> None:
    """And anything else is refused by name."""
    assert parse_replicas("3") == 3
    assert parse_replicas("1:4") == (1, 4)
    with pytest.raises(ConfigError, match="'many'"):
        parse_replicas("many")


def test_a_taken_port_is_told_in_one_sentence(no_token: None) -> None:
    """Found out by binding, before a cluster starts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"127.0.0.1:{port}"):
            require_free_port(EndpointOptions(port=port))
    require_free_port(EndpointOptions(port=port))


def test_the_config_is_what_serve_deploys(no_token: None) -> None:
    """Serve's own schema takes it; queues are bounded, and what is beyond them is answered with 429."""
    from ray.serve.schema import ServeDeploySchema

    served = Served(releases=Path("/r"), release="x", lake=Path("/l"))
    for replicas in (1, (1, 2)):
        config = serve_config(served, EndpointOptions(replicas=replicas, cpus_per_replica=0.5))
        (application,) = ServeDeploySchema.model_validate(config).applications
        (deployment,) = application.deployments
        assert deployment.max_queued_requests > 0
        assert deployment.backpressure_config.status_code == 429
        assert Served.from_user_config(deployment.user_config) == served


def test_the_file_deploys_the_same(no_token: None) -> None:
    """serve/config.yaml differs from what `b3dist serve` deploys in names and folders alone."""
    file = yaml.safe_load(CONFIG_FILE.read_text(encoding="utf-8"))
    (application,) = file["applications"]
    (deployment,) = application["deployments"]
    served = Served(releases=Path("$B3DIST_RELEASES"), release="champion", lake=Path("$B3DIST_LAKE"))
    expected = serve_config(served, EndpointOptions())
    (expected_application,) = expected["applications"]
    (expected_deployment,) = expected_application["deployments"]
    assert application.pop("import_path") == "serve.app:build"
    expected_application.pop("import_path")
    given = deployment.pop("user_config")
    assert {**served.to_user_config(), **given} == expected_deployment.pop("user_config")
    assert deployment["ray_actor_options"].pop("num_gpus", 0) == expected_deployment["ray_actor_options"].pop(
        "num_gpus"
    )
    assert file == expected


def test_a_promote_and_a_rollback_are_followed(desk: Desk) -> None:
    """Each becomes one deployment, with the release served before as the fallback."""
    desk.promote(desk.first.release_id)
    endpoint, follower, said = following(desk, "champion")
    follower.step()
    assert len(endpoint.deployed) == 1
    desk.promote(desk.second.release_id)
    follower.step()
    follower.step()
    assert (follower.release, follower.swaps) == (desk.second.release_id, 1)
    assert endpoint.deployed[-1].fallback == desk.first.release_id
    desk.roll_back()
    follower.step()
    follower.step()
    assert (follower.release, follower.swaps, len(endpoint.deployed)) == (desk.first.release_id, 2, 3)
    assert "champion" in said[-1]
    assert desk.first.release_id in said[-1]


def test_an_ingest_is_followed(desk: Desk) -> None:
    """New sessions arrive without another release."""
    endpoint, follower, said = following(desk, desk.first.release_id)
    desk.ingest_newest_year()
    follower.step()
    follower.step()
    assert endpoint.holder.status()["newest_session"] == "2018-12-28"
    assert "2018-12-28" in said[-1]
    assert follower.release == desk.first.release_id


def test_what_cannot_be_taken_over_is_told_and_asked_for_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged lake leaves the old state serving; once it is whole again the same question succeeds."""
    endpoint, follower, said = following(desk, desk.first.release_id)
    manifest = (desk.lake / "manifest.json").read_bytes()
    (desk.lake / "manifest.json").write_bytes(b"{")
    follower.step()
    follower.step()
    assert "cannot take over" in said[-1]
    assert f"{desk.first.release_id} serves on" in said[-1]
    assert endpoint.holder.current is not None
    follower.step()
    assert len(endpoint.deployed) == 2
    monkeypatch.setattr(follow, "RETRY_AFTER_S", 0.0)
    follower.step()
    follower.step()
    assert [served.attempt for served in endpoint.deployed] == [0, 0, 1]
    (desk.lake / "manifest.json").write_bytes(manifest)
    follower.step()
    follower.step()
    assert said[-1].startswith("serving release")


def test_what_cannot_be_served_at_the_start_is_an_error(desk: Desk) -> None:
    """With the reason that the replica gave."""
    desk.flip_a_byte(desk.first.release_id)
    with pytest.raises(ServingError, match=desk.first.release_id):
        following(desk, desk.first.release_id)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"schema_version": 1, "current": {"champion": []}}'])
def test_damaged_aliases_are_told_by_the_replicas(desk: Desk, content: str) -> None:
    """The watch judges nothing; what was champion serves on."""
    desk.promote(desk.first.release_id)
    _, follower, said = following(desk, "champion")
    (desk.releases / "aliases.json").write_text(content)
    follower.step()
    follower.step()
    assert "aliases.json" in said[-1]
    assert follower.release == desk.first.release_id


def test_a_look_that_fails_is_told_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever looking raises, what is served serves on, and the next look is taken."""
    endpoint, follower, said = following(desk, desk.first.release_id)
    with monkeypatch.context() as broken:
        broken.setattr(Watch, "look", lambda _watch: [][0])
        follower.step()
        follower.step()
    assert said[1:] == [
        f"cannot take over what is named now: IndexError: list index out of range; {desk.first.release_id} serves on"
    ]
    desk.ingest_newest_year()
    follower.step()
    follower.step()
    assert len(endpoint.deployed) == 2
    assert said[-1].startswith("serving release")


@pytest.fixture
def dashboard(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The dashboard's address of a cluster whose processes were started with what serve/config.yaml asks for."""
    import ray

    for name, value in (("RELEASES", desk.releases), ("LAKE", desk.lake)):
        monkeypatch.setenv(f"B3DIST_{name}", str(value))
    monkeypatch.setenv("PYTHONPATH", str(CONFIG_FILE.parents[1]))
    context = ray.init(address="local", num_cpus=2, include_dashboard=True, dashboard_host="127.0.0.1")
    yield f"http://{context.dashboard_url}"
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_serve_deploy_of_the_file(no_token: None, desk: Desk, dashboard: str, tmp_path: Path) -> None:
    """`serve deploy serve/config.yaml` brings the champion up; deployed again with another release it is swapped."""
    desk.promote(desk.first.release_id)
    port = free_port()
    text = CONFIG_FILE.read_text(encoding="utf-8").replace("port: 8000", f"port: {port}")
    serve_command = [str(Path(sys.executable).with_name("serve")), "deploy", "--address", dashboard]

    def deploy(content: str) -> None:
        (tmp_path / "config.yaml").write_text(content, encoding="utf-8")
        environment = {**os.environ, "RAY_AUTH_MODE": "token"}
        command = [*serve_command, str(tmp_path / "config.yaml")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr

    def wait_for(release_id: str) -> None:
        deadline, answer = time.monotonic() + PATIENCE_S, None
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), contextlib.closing(Connection(port)) as connection:
                answer = connection.ask("GET", "/readyz")
                if answer[0] == 200 and answer[1]["release_id"] == release_id:
                    return
            time.sleep(0.1)
        pytest.fail(f"{release_id} is not served: {answer}")

    deploy(text)
    wait_for(desk.first.release_id)
    replicas = replica_pids()
    deploy(text.replace("release: champion", f"release: {desk.second.release_id}"))
    wait_for(desk.second.release_id)
    assert replica_pids() == replicas


def replica_pids() -> set[int]:
    """Processes below this one that serve."""
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if "ServeReplica" in " ".join(command_of(child))}
