"""Prometheus metrics: Serve's own, and what it does not know, which release is served and how old its data is.

Serve counts requests (ray_serve_num_http_requests_total), their latency (ray_serve_http_request_latency_ms), what was
refused (ray_serve_num_http_error_requests_total) and batches (ray_serve_actual_batch_size) itself.
"""

import functools
import urllib.request
from datetime import UTC, datetime

import ray
from ray.serve.metrics import Gauge

from b3dist.serving.holder import Serving
from b3dist.serving.problems import Refusal

SHOWN = ("ray_serve_", "ray_b3dist_")
_TIMEOUT_S = 5.0


class ServedGauges:
    """ray_b3dist_release_info and ray_b3dist_data_age_days, one series per replica."""

    def __init__(self) -> None:
        self._release = Gauge(
            "b3dist_release_info", description="1 for the release that is served.", tag_keys=("release_id", "lake")
        )
        self._age = Gauge("b3dist_data_age_days", description="Days from the newest session to today (UTC).")
        self._tags: dict[str, str] | None = None

    def show(self, serving: Serving | None) -> None:
        """Bring the gauges up to date; to be called every few seconds, as the data ages by itself."""
        if serving is None:
            return
        tags = {"release_id": serving.release.release_id, "lake": serving.lake.manifest_hash[:12]}
        if self._tags is not None and self._tags != tags:
            self._release.set(0, tags=self._tags)  # a series cannot be taken back
        self._tags = tags
        self._release.set(1, tags=tags)
        self._age.set((datetime.now(UTC).date() - serving.newest_session).days)


def read_node_metrics() -> str:
    """The SHOWN metrics of this replica's node, in Prometheus' text format.

    Ray gathers them on a port of its own choice, which only a dashboard would tell; its page also holds a megabyte
    about Ray itself.

    Raises:
        Refusal: 503, Ray's metrics agent does not answer.
    """
    try:
        with urllib.request.urlopen(_metrics_address(), timeout=_TIMEOUT_S) as page:  # noqa: S310  http, by its maker
            lines = page.read().decode().splitlines()
    except (OSError, LookupError) as error:
        raise Refusal(503, f"Ray's metrics agent on this node does not answer: {error}") from None
    return "".join(
        f"{line}\n" for line in lines if line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(SHOWN)
    )


@functools.cache
def _metrics_address() -> str:
    own = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == own)
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
