"""Attaching where something else than Ray listens: said at once, where Ray itself would try for minutes."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from b3dist.distributed import probe
from b3dist.distributed.cluster import connected
from b3dist.distributed.probe import require_cluster
from b3dist.errors import RunError


class Quiet(http.server.BaseHTTPRequestHandler):
    """Answers every request with an error, and logs nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def web_server() -> Iterator[int]:
    """The port of an HTTP server on all addresses of this machine, as Ray takes loopback for its own address."""
    with http.server.ThreadingHTTPServer(("", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "localhost:{}", "ray://127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_a_web_server_is_no_cluster(web_server: int, address: str) -> None:
    """The dashboard's port, for example, is one; a whole verb says so, and what the right port is."""
    before = time.monotonic()
    with (
        pytest.raises(RunError, match="something listens there, but it is no Ray cluster") as caught,
        connected(address.format(web_server), num_cpus=1),
    ):
        raise AssertionError("there is no cluster")
    assert time.monotonic() - before < 45
    assert not ray.is_initialized()
    assert "6379" in caught.value.hint


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the seconds that a cluster may take."""
    assert probe.PROBE_S < 10
    monkeypatch.setattr(probe, "PROBE_S", 2.0)
    with socket.create_server(("", 0)) as silent:
        before = time.monotonic()
        with pytest.raises(RunError, match=r"no Ray cluster \(no answer within 2 s\)"):
            require_cluster(f"127.0.0.1:{silent.getsockname()[1]}")
        assert 1.5 < time.monotonic() - before < 45


def test_a_token_that_is_asked_for_and_not_there_is_said(web_server: int, tmp_path: Path) -> None:
    """In Ray's words, without the pages it adds; Ray looks for tokens once per process."""
    program = f"from b3dist.distributed.probe import require_cluster; require_cluster('127.0.0.1:{web_server}')"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=300)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("b3dist.errors.RunError: cannot connect Ray to the cluster at 127.0.0.1:")
    assert last.endswith("Ray couldn't find an authentication token")
