"""What of a replica can be reached from other machines: nothing but the proxy, and that only with a token."""

import ipaddress
import logging
from typing import Any

from b3dist.errors import ConfigError
from b3dist.serving.auth import TOKEN_VARIABLE

_LOGGER = logging.getLogger("ray.serve")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`; a name that is not `localhost` counts as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_token(host: str, token: bytes | None) -> None:
    """Refuse to listen where others can reach it without a token.

    Raises:
        ConfigError: `host` is not loopback and there is no token.
    """
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and no token is set",
            hint=f"set {TOKEN_VARIABLE} or a token file, or listen on 127.0.0.1",
        )


def close_replica() -> None:
    """Bind a replica's internal gRPC port to loopback; to be called while the replica is constructed.

    Ray 2.60 opens it on all interfaces, whatever transport is in use, and it unpickles what it gets from anybody: a
    program for everyone on the network. There is no option for it. Where that transport is switched on, the port
    listens on the node's address, by which the proxies find it.
    """
    import ray
    from ray.serve._private import constants, replica

    uses_grpc = constants.RAY_SERVE_USE_GRPC_BY_DEFAULT or constants.RAY_SERVE_PROXY_USE_GRPC
    host = ray.util.get_node_ip_address() if uses_grpc else "127.0.0.1"
    if not is_loopback(host):
        _LOGGER.warning("Serve's gRPC transport is on: whoever reaches %s can run code in this replica", host)
    bind = replica.add_port_to_grpc_server

    def bind_to_host(server: Any, address: str) -> int:
        return int(bind(server, address.replace("[::]:", f"{host}:")))

    replica.add_port_to_grpc_server = bind_to_host
