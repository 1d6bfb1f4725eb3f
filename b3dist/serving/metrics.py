"""What Serve's own Prometheus metrics do not know: which release is served, and how old its data is.

Serve counts requests (ray_serve_num_http_requests_total), their latency (ray_serve_http_request_latency_ms), what was
refused (ray_serve_num_http_error_requests_total) and batches (ray_serve_actual_batch_size) itself. All of them, and
these, are on the port that Ray exports metrics on, one per node.
"""

from datetime import UTC, datetime

from ray.serve.metrics import Gauge

from b3dist.serving.holder import Serving


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
