"""The deployment as a Serve config, and a cluster that runs it.

Deployed by config, always: a config that differs in `user_config` alone is taken over in place, whereas `serve.run`
with changed options replaces the replicas.
"""

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from b3dist.distributed.cluster import connected
from b3dist.errors import ConfigError, ServingError
from b3dist.serving.auth import read_token
from b3dist.serving.network import require_token
from b3dist.serving.served import Served

APPLICATION = "b3dist"
DEPLOYMENT = "Endpoint"
IMPORT_PATH = "b3dist.serving.app:build"

_READY_TIMEOUT_S = 300.0
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """Where and how large the endpoint is; nothing here changes what it answers.

    Raises:
        ConfigError: a value out of range, or another host than loopback without a token.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int | tuple[int, int] = 1
    """How many, or least and most of an autoscaled deployment."""
    cpus_per_replica: float = 1.0
    gpus_per_replica: float = 0.0
    max_queue: int = 256
    """Requests that may wait beyond those the replicas work on; more are answered with 429."""
    token_file: Path | None = None
    """Holds the token that callers must send; None: B3DIST_TOKEN, or no token."""
    address: str | None = None
    """GCS address of a running cluster, or "local" for a private one; None: RAY_ADDRESS, or else "local"."""
    debug: bool = False
    """Show the replicas' output."""

    def __post_init__(self) -> None:
        least, most = self.replica_range
        if least < 1 or most < least:
            raise ConfigError(
                f"replicas must be at least 1 and least:most in order, got {self.replicas}",
                hint="--replicas 2, or 1:4 to scale with the load",
            )
        if self.max_queue < 1:
            raise ConfigError(f"at least one request must be allowed to wait, got a queue of {self.max_queue}")
        self._require_resources()
        if not self.host.strip():
            raise ConfigError("the host to listen on is empty", hint="--host 127.0.0.1 for this machine only")
        if not 0 < self.port < 2**16:
            raise ConfigError(f"the port must be between 1 and 65535, got {self.port}")
        _require_router_of_its_own()
        # With HAProxy as its proxy Serve listens on all interfaces, whatever host is asked for.
        reachable = "0.0.0.0" if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" else self.host  # noqa: S104
        require_token(reachable, read_token(self.token_file))
        if self.has_token and self.token_file is None and self.attaches:
            raise ConfigError(
                "a token in the environment does not reach the replicas of a cluster that runs already",
                hint="name a file that its nodes can read with --token-file",
            )
        cores = _num_cores()
        if not self.attaches and most * self.cpus_per_replica > cores:
            raise ConfigError(
                f"{most} replicas of {self.cpus_per_replica:g} cores do not fit on this machine's {cores}",
                hint="fewer --replicas, or less --cpus-per-replica",
            )

    def _require_resources(self) -> None:
        if not (math.isfinite(self.cpus_per_replica) and self.cpus_per_replica > 0):
            raise ConfigError(
                f"a replica needs more than 0 cores, got {self.cpus_per_replica:g}", hint="--cpus-per-replica 1"
            )
        if not (math.isfinite(self.gpus_per_replica) and self.gpus_per_replica >= 0):
            raise ConfigError(
                f"a replica cannot have {self.gpus_per_replica:g} GPUs, expected 0 or more",
                hint="--gpus-per-replica 0 serves on the CPU",
            )
        if self.gpus_per_replica > 1 and self.gpus_per_replica % 1:
            raise ConfigError(
                f"above one GPU only whole ones can be given to a replica, got {self.gpus_per_replica:g}",
                hint="--gpus-per-replica 1, or 0.5 to share one",
            )

    @property
    def replica_range(self) -> tuple[int, int]:
        """Least and most replicas."""
        return (self.replicas, self.replicas) if isinstance(self.replicas, int) else self.replicas

    @property
    def has_token(self) -> bool:
        """Whether callers must send one."""
        return read_token(self.token_file) is not None

    @property
    def attaches(self) -> bool:
        """Whether it runs on a cluster that is there already."""
        return attaches(self.address)

    @property
    def url(self) -> str:
        """Where callers on this machine find it."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else "[::1]" if self.host == "::" else self.host  # noqa: S104
        return f"http://{host}:{self.port}"


def attaches(address: str | None) -> bool:
    """Whether an address, or RAY_ADDRESS where there is none, means a cluster that is there already."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") != "local"


def serve_config(served: Served, options: EndpointOptions) -> dict[str, Any]:
    """What `serve deploy` would read from a file: the same as serve/config.yaml, with these values."""
    least, most = options.replica_range
    deployment: dict[str, Any] = {
        "name": DEPLOYMENT,
        "user_config": served.to_user_config(),
        "max_ongoing_requests": 64,  # per replica, as many as one batch takes
        "max_queued_requests": options.max_queue,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1},
        "ray_actor_options": {"num_cpus": options.cpus_per_replica, "num_gpus": options.gpus_per_replica},
        "graceful_shutdown_timeout_s": 20,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": 2,  # how late a dead replica is noticed: 10 by default
        "health_check_timeout_s": 30,
    }
    if least == most:
        deployment["num_replicas"] = most
    else:
        deployment["autoscaling_config"] = {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": 16,
            "upscale_delay_s": 5,
            "downscale_delay_s": 120,
        }
    token_file = str(options.token_file.resolve()) if options.token_file else None
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": options.host, "port": options.port},
        "logging_config": {"enable_access_log": False, "log_level": "INFO"},
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": {"token_file": token_file, "token_required": options.has_token},
                "deployments": [deployment],
            }
        ],
    }


def parse_replicas(text: str) -> int | tuple[int, int]:
    """`2`, or `1:4` to scale with the load.

    Raises:
        ConfigError: anything else.
    """
    try:
        least, separator, most = text.partition(":")
        return (int(least), int(most)) if separator else int(least)
    except ValueError:
        raise ConfigError(f"cannot read --replicas {text!r}", hint="a number like 2, or least:most like 1:4") from None


def _require_router_of_its_own() -> None:
    """Refuse Serve without the thread that asks replicas what became of a deploy; the command has no event loop.

    Measured besides: half a minute to shut down (docs/LOG.md).
    """
    optimized = os.environ.get("RAY_SERVE_THROUGHPUT_OPTIMIZED") == "1"
    separate = os.environ.get("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP")
    if optimized or separate not in (None, "1"):
        name = "RAY_SERVE_THROUGHPUT_OPTIMIZED=1" if optimized else f"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP={separate}"
        raise ConfigError(
            f"{name} in the environment takes from Serve what the endpoint needs to hear of its replicas",
            hint=f"unset {name.partition('=')[0]}; requests are batched without it",
        )


def require_known_host(host: str) -> None:
    """Look a host up; an empty one is left to `EndpointOptions`.

    Raises:
        ServingError: no such host.
    """
    try:
        socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise ServingError(
            f"there is no host {host!r} to listen on: {getattr(error, 'strerror', None) or error}",
            hint="--host 127.0.0.1 for this machine only, or an address of this machine",
        ) from error


def require_free_port(options: EndpointOptions) -> None:
    """Bind once, and let go.

    Raises:
        ServingError: the port is taken, or the host is not this machine's.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        raise ServingError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror or error}",
            hint="another server may run there: choose another --port",
        ) from error


class Endpoint:
    """The running deployment, seen from the process that deployed it."""

    def __init__(self, client: Any, options: EndpointOptions) -> None:
        self._client = client
        self._options = options

    def deploy(self, served: Served) -> None:
        """Ask for this to be served: in place, if only `served` changed since the last call."""
        from ray.serve.schema import ServeDeploySchema

        self._client.deploy_apps(ServeDeploySchema.model_validate(serve_config(served, self._options)))

    def statuses(self, *, timeout_s: float = 10.0) -> list[dict[str, Any]]:
        """`Holder.status` of every replica that answers."""
        from ray import serve

        answers = (
            serve.get_app_handle(APPLICATION).broadcast("status").results(timeout_s=timeout_s, return_exceptions=True)
        )
        return [answer for answer in answers if isinstance(answer, dict)]

    def wait_until_up(self) -> None:
        """Wait for the application to run; whether its replicas could take anything over they say themselves.

        Raises:
            ServingError: Serve gave up on it, or it took too long.
        """
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline:
            state, message = self._state()
            if state == "RUNNING":
                return
            if state in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise ServingError(f"Serve could not start the endpoint ({state}): {message}", hint="see --debug")
            time.sleep(_POLL_S)
        raise ServingError(
            f"the endpoint is not up after {_READY_TIMEOUT_S:g} s ({state}: {message})",
            hint="the cluster may have no room for its replicas: fewer --replicas or --gpus-per-replica",
        )

    def is_running(self) -> bool:
        """Whether Serve is done with the last deployment."""
        return self._state()[0] == "RUNNING"

    def num_replicas(self) -> int:
        """Replicas that answer now; one that is taking something over does."""
        from ray import serve

        application = serve.status().applications.get(APPLICATION)
        states = application.deployments[DEPLOYMENT].replica_states if application else {}
        return int(states.get("RUNNING", 0) + states.get("UPDATING", 0))

    def _state(self) -> tuple[str, str]:
        from ray import serve

        application = serve.status().applications.get(APPLICATION)
        if application is None:
            return "NOT_STARTED", ""
        reasons = [application.message, *(one.message for one in application.deployments.values())]
        return str(application.status.value), " ".join(reason for reason in reasons if reason)


@contextlib.contextmanager
def running_endpoint(options: EndpointOptions) -> Iterator[Endpoint]:
    """Serve on a cluster, without an application yet; a private cluster ends with it, another is left as it was.

    Raises:
        RunError: Ray did not start, or there is no cluster at the address.
        ServingError: Serve is used for something else there, or listens elsewhere.
    """
    # Ray runs its workers at niceness 15: beside anything else on the machine proxy and replicas would come last.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with connected(options.address, num_cpus=_num_cores(), debug=options.debug) as ray:
        from ray import serve
        from ray.serve.context import _get_global_client

        if not options.debug:
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
        found = _get_global_client(raise_if_no_controller_running=False)
        if found is not None:
            _require_ours(found, options)
        else:
            _start_serve(options)
        client = _get_global_client()
        try:
            yield Endpoint(client, options)
        except ray.exceptions.RayError as error:
            raise ServingError(f"lost the cluster that serves: {error}", hint="start the endpoint again") from error
        finally:
            with contextlib.suppress(ray.exceptions.RayError):  # it may be gone
                serve.delete(APPLICATION)  # answers what is under way first
                if found is None and options.attaches:
                    serve.shutdown()


def _start_serve(options: EndpointOptions) -> None:
    from ray import serve

    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": options.host, "port": options.port},
            logging_config={"enable_access_log": False},
        )
    except (RuntimeError, TimeoutError) as error:
        raise ServingError(f"Ray Serve did not start: {error}", hint="run again with --debug") from error


def _require_ours(client: Any, options: EndpointOptions) -> None:
    """A config deploy removes every application that the config does not name, and cannot move the proxy.

    Raises:
        ServingError: another application runs on the cluster's Serve, or its proxy listens elsewhere.
    """
    from ray import serve

    others = sorted(set(serve.status().applications) - {APPLICATION})
    if others:
        raise ServingError(
            f"Serve on that cluster runs other applications ({', '.join(others)})",
            hint="add the application of serve/config.yaml to the config they are deployed by, and `serve deploy` that",
        )
    listens = (client.http_config.host, client.http_config.port)
    if listens != (options.host, options.port):
        raise ServingError(
            f"Serve on that cluster listens on {listens[0]}:{listens[1]} already",
            hint=f"use --host {listens[0]} --port {listens[1]}, or `serve shutdown` first",
        )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))
