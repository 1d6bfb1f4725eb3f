"""What a run amounts to: live progress, and summary.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from b3dist.distributed.assignments import AssetRecord, Assignments
from b3dist.distributed.fleet.outcomes import describe_bundle
from b3dist.distributed.fleet.starts import describe_starts
from b3dist.distributed.ledger import Event
from b3dist.run_folder import SCHEMA_VERSION, RunFolder


@dataclass(frozen=True, kw_only=True)
class FleetProgress:
    """A moment of a running fleet; counts of this invocation, except `already_done`."""

    total: int
    """Assets this invocation began with: to be trained, skipped or failed."""
    trained: int
    skipped: int
    failed: int
    in_flight: int
    already_done: int
    windows_per_s: float
    """Training windows x epochs per second since the first lease; 0 before the first asset is trained."""
    left_s: float | None
    """Seconds left, as far as can be told; None before the first asset is settled."""

    @classmethod
    def of(cls, assignments: Assignments, *, now: float) -> Self:
        """Progress as of `now` (seconds since 1970)."""
        invocation = assignments.invocation
        trained, skipped, failed = (
            assignments.count(state, invocation=invocation) for state in ("trained", "skipped", "failed")
        )
        waiting, in_flight = assignments.count("waiting"), assignments.count("leased")
        settled = trained + skipped + failed
        first = _first_lease(_events_of(assignments, invocation))
        elapsed = max(now - first, 1e-9) if first is not None else 0.0
        windows = sum(_windows(asset) for asset in _of_invocation(assignments, invocation))
        return cls(
            total=settled + waiting + in_flight,
            trained=trained,
            skipped=skipped,
            failed=failed,
            in_flight=in_flight,
            already_done=assignments.count("trained") - trained,
            windows_per_s=windows / elapsed if elapsed else 0.0,
            left_s=elapsed / settled * (waiting + in_flight) if settled else None,
        )

    @property
    def settled(self) -> int:
        """Assets this invocation is done with."""
        return self.trained + self.skipped + self.failed


def summarise(run: RunFolder, assignments: Assignments, *, state: str, started: float) -> dict[str, Any]:
    """The content of summary.json; `totals` describe this invocation, `assets` the whole run.

    Args:
        run: the run.
        assignments: as far as the driver knows.
        state: finished, or interrupted if assets may be left.
        started: when this invocation began, seconds since 1970.
    """
    invocation = assignments.invocation
    events = _events_of(assignments, invocation)
    first = _first_lease(events)
    settled = [event["at"] for event in events if event["event"] in ("trained", "skipped", "failed")]
    written = [event["at"] for event in events if event["event"] == "trained"]
    last = max(written or settled, default=None)
    ended = datetime.now(UTC).timestamp()
    entries = asset_entries(run, assignments)
    starts, start_of = describe_starts(run.path)
    if starts is not None:
        entries = [entry | {"start": start_of.get(entry["ticker"])} for entry in entries]
    own = {asset.ticker for asset in _of_invocation(assignments, invocation)}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "kind": run.settings.kind,
        "state": state,
        "totals": {
            "assets": len(assignments.assets),
            **{name: assignments.count(name, invocation=invocation) for name in ("trained", "skipped", "failed")},
            "already_done": assignments.count("trained") - assignments.count("trained", invocation=invocation),
            "already_skipped": assignments.count("skipped") - assignments.count("skipped", invocation=invocation),
            "left": assignments.count("waiting") + assignments.count("leased"),
            "windows_trained": sum(entry["windows_trained"] or 0 for entry in entries if entry["ticker"] in own),
            "train_seconds": round(last - first, 3) if first is not None and last is not None else 0.0,
            "wall_seconds": round(ended - started, 3),
        },
        "invocation": invocation,
        "attempt": assignments.attempt,
        "times": {
            "created_at": run.settings.created_at,
            "started_at": started,
            "first_lease_at": first,
            "last_written_at": last,
            "ended_at": ended,
        },
        **({} if starts is None else {"starts": starts}),
        "assets": entries,
    }


def asset_entries(run: RunFolder, assignments: Assignments) -> list[dict[str, Any]]:
    """Every asset of a run, in the order of work: its state, and why or how well."""
    return [_entry(run, asset) for asset in assignments.assets.values()]


def _entry(run: RunFolder, asset: AssetRecord) -> dict[str, Any]:
    detail = asset.detail
    if asset.state == "trained" and detail.get("adopted"):
        detail = detail | describe_bundle(run.assets / asset.ticker)
    return {
        "ticker": asset.ticker,
        "state": "waiting" if asset.state == "leased" else asset.state,
        "reason": detail.get("reason"),
        "error": detail.get("error") if asset.state == "failed" else None,
        "kind": detail.get("kind"),
        "seconds": detail.get("seconds"),
        "num_train_windows": detail.get("num_train_windows"),
        "epochs": detail.get("epochs"),
        "windows_trained": detail.get("windows_trained"),
        "metrics": detail.get("metrics"),
        "leases": asset.leases,
        "invocation": asset.invocation or None,
    }


def _events_of(assignments: Assignments, invocation: int) -> Sequence[Event]:
    opened = [
        number
        for number, event in enumerate(assignments.events)
        if event["event"] == "opened" and event["invocation"] == invocation
    ]
    return assignments.events[opened[-1] :] if opened else []


def _of_invocation(assignments: Assignments, invocation: int) -> list[AssetRecord]:
    return [asset for asset in assignments.assets.values() if asset.invocation == invocation]


def _first_lease(events: Sequence[Event]) -> float | None:
    return next((float(event["at"]) for event in events if event["event"] == "leased"), None)


def _windows(asset: AssetRecord) -> int:
    return int(asset.detail.get("windows_trained", 0)) if asset.state == "trained" else 0
