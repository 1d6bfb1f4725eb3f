"""Whether a Ray cluster answers at an address; `ray.init` would try for minutes and heed no Ctrl-C meanwhile."""

import socket
import time
from typing import Final

from b3dist.errors import RunError

PROBE_S: Final = 6.0
"""How long a cluster may take to answer: one on the same machine takes 20 ms, and imports come on top."""

_HINT: Final = (
    "check --address and RAY_ADDRESS: Ray's own port is 6379 unless told otherwise (8265 is its dashboard's); "
    "without an address a cluster is started here"
)


def require_cluster(address: str) -> None:
    """Refuse an address where nothing answers, or something else than Ray; what is no HOST:PORT is left to Ray.

    Raises:
        RunError: says what is there, within `PROBE_S`.
    """
    scheme, _, place = address.rpartition("://")
    host, separator, port = place.rpartition(":")
    host = host.strip("[]")
    if not (separator and port.isdigit()):  # "auto", or what Ray itself will say something about
        return
    if not scheme and host in ("127.0.0.1", "localhost", "::1"):
        from ray.util import get_node_ip_address

        host = get_node_ip_address()  # where Ray takes it to be
    deadline = time.monotonic() + PROBE_S
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_S).close()
    except (OSError, OverflowError) as error:
        raise _refusal(address, str(error)) from error
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    reason = _why_not_ray(target, is_client=scheme == "ray", timeout_s=max(1.0, deadline - time.monotonic()))
    if reason is not None:
        raise _refusal(address, reason)


def _refusal(address: str, reason: str) -> RunError:
    return RunError(f"cannot connect Ray to the cluster at {address}: {reason}", hint=_HINT)


def _why_not_ray(target: str, *, is_client: bool, timeout_s: float) -> str | None:
    """What speaks against a cluster at HOST:PORT; None if its control store or a server for ray:// clients answers."""
    import grpc  # type: ignore[import-untyped]
    from ray._private.gcs_utils import create_gcs_channel
    from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    from ray.exceptions import AuthenticationError

    answers = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}  # Ray says itself what it lacks
    if is_client:
        answers.add(grpc.StatusCode.UNIMPLEMENTED)
    with create_gcs_channel(target) as channel:
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=timeout_s)
        except AuthenticationError as error:  # before anything is asked
            return str(error).partition(". ")[0]
        except grpc.RpcError as error:
            if error.code() in answers:
                return None
            late = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            said = f"no answer within {PROBE_S:g} s" if late else "it does not speak Ray's protocol"
            return f"something listens there, but it is no Ray cluster ({said})"
    return None
