"""Attaching to a cluster, as far as it can be known without one."""

import socket
import time

import pytest

from b3dist.distributed.cluster import connected
from b3dist.errors import RunError


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "localhost:{port}", "ray://127.0.0.1:{port}", "x.invalid:1"])
def test_address_where_nothing_listens_is_refused_at_once(address: str) -> None:
    """Ray itself would try for minutes, and heed no Ctrl-C meanwhile."""
    with socket.socket() as deaf:  # holds the port and does not listen
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        before = time.monotonic()
        with (
            pytest.raises(RunError, match="cannot connect Ray to the cluster at"),
            connected(address.format(port=port), num_cpus=1),
        ):
            raise AssertionError("there is no cluster")
    assert time.monotonic() - before < 45
