"""Which asset is waiting, leased, trained, skipped or failed: a state machine whose every step is a ledger event.

waiting ── leased ── trained | skipped | failed
   └────────┘ worker lost (charged or not), error to be retried, group restarted

State is only ever changed by applying an event, live or replayed, so what a crash leaves on disk is the state.
Knows neither Ray nor how an asset is trained.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from b3dist.distributed.ledger import Event, Ledger, read_ledger
from b3dist.errors import RunError

State = Literal["waiting", "leased", "trained", "skipped", "failed"]

MAX_ERRORS = 2
"""Ordinary exceptions of one asset before it is recorded as failed: the first is retried."""
MAX_CHARGES = 2
"""Workers that one asset may take down before it is quarantined."""
MAX_FRUITLESS_RESTARTS = 5
"""Restarts of the worker group without a finished asset before the workers give up."""


@dataclass(frozen=True)
class WorkerId:
    """A worker of one attempt: `attempt` counts worker groups over the whole life of a run."""

    attempt: int
    rank: int
    pid: int
    host: str


@dataclass
class AssetRecord:
    """What is known about one asset."""

    ticker: str
    state: State = "waiting"
    lease: WorkerId | None = None
    errors: int = 0
    charges: int = 0
    leases: int = 0
    invocation: int = 0
    detail: Event = field(default_factory=dict)
    """The event that settled the asset: seconds, metrics, reason or error."""


class Assignments:
    """Hands out assets in the given order and settles each exactly once.

    Args:
        tickers: every asset of the run, in the order of work.
        ledger_path: the ledger; replayed if it exists.
        assets_dir: an asset is trained when, and only when, its folder is in here.
        writing: own the ledger; otherwise only `follow` changes anything.
    """

    def __init__(self, tickers: Sequence[str], *, ledger_path: Path, assets_dir: Path, writing: bool = True) -> None:
        self.assets = {ticker: AssetRecord(ticker) for ticker in tickers}
        self.attempt = 0
        self.invocation = 0
        self.fruitless_restarts = 0
        self.stopped: str | None = None
        self.events: list[Event] = []
        self._assets_dir = assets_dir
        self._num_workers = 1
        self.is_fresh = True
        """Whether no group of workers has registered in this invocation."""
        self._appliers: dict[str, Callable[[Event], None]] = {
            "opened": self._apply_opened,
            "group": self._apply_group,
            "leased": self._apply_leased,
            "charged": self._apply_charged,
            "requeued": self._apply_requeued,
            "error": self._apply_error,
            "trained": self._apply_settled,
            "skipped": self._apply_settled,
            "failed": self._apply_settled,
            "stopped": self._apply_stopped,
        }
        # The lock comes first: until it is held, a killed driver's coordinator may still append.
        self._ledger = Ledger(ledger_path) if writing else None
        try:
            for number, event in enumerate(read_ledger(ledger_path), start=1):
                self._replay(event, f"{ledger_path}, line {number}")
        except BaseException:
            self.close()
            raise

    # What the driver does

    def open(self, *, pid: int, host: str) -> int:
        """Begin an invocation: failed assets wait again, assets in flight when the last driver died are settled.

        Returns:
            The number of the invocation, from 1.
        """
        self._settle_by_folder()
        self._record("opened", invocation=self.invocation + 1, pid=pid, host=host)
        return self.invocation

    def stop(self, reason: str) -> None:
        """Hand out nothing more; assets in flight may still be reported."""
        self.stopped = self.stopped or reason
        self._record("stopped", reason=reason)

    def follow(self, event: Event) -> None:
        """Apply an event that another process has written to the same ledger."""
        self._apply(event)

    def count(self, state: State, *, invocation: int | None = None) -> int:
        """How many assets are in a state, or were put there by one invocation."""
        return sum(
            1
            for asset in self.assets.values()
            if asset.state == state and (invocation is None or asset.invocation == invocation)
        )

    def close(self) -> None:
        """Give up the ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    # What the workers do

    def begin_attempt(self, num_workers: int) -> int:
        """Register a new worker group, by its first rank, once the old group is gone.

        Leased assets whose folder exists are trained; the others wait again, and nobody is charged for them.

        Returns:
            The attempt's number; messages of older ones are ignored from here on.
        """
        self._record("group", attempt=self.attempt + 1, workers=num_workers)
        self._settle_by_folder()
        if self.fruitless_restarts > MAX_FRUITLESS_RESTARTS:
            self.stop(f"the workers were restarted {MAX_FRUITLESS_RESTARTS} times without finishing an asset")
        return self.attempt

    def lease(self, worker: WorkerId) -> str | None:
        """The next asset for a worker; None when nothing is left for it."""
        pack = self.lease_pack(worker, 1)
        return pack[0] if pack else None

    def lease_pack(self, worker: WorkerId, most: int) -> list[str]:
        """The next assets for a worker, at most its share of what is not settled; none when nothing is left for it.

        An asset that has raised or cost a worker is leased alone: whatever it does again must not be charged to others.
        """
        if worker.attempt != self.attempt or self.stopped is not None:
            return []
        unsettled = self.count("waiting") + self.count("leased")
        most = max(1, min(most, math.ceil(unsettled / max(self._num_workers, 1))))
        pack: list[str] = []
        for asset in self.assets.values():
            if asset.state != "waiting":
                continue
            if self._is_written(asset.ticker):  # by a worker that was thought dead
                self._record("trained", ticker=asset.ticker, adopted=True)
                continue
            suspect = asset.errors > 0 or asset.charges > 0
            if len(pack) >= most or (suspect and pack):
                break
            self._record("leased", ticker=asset.ticker, **vars(worker))
            pack.append(asset.ticker)
            if suspect:
                break
        return pack

    def record_trained(self, worker: WorkerId, ticker: str, outcome: Mapping[str, Any]) -> bool:
        """The asset's folder is in place; False if the lease is no longer this worker's."""
        return self._settle(worker, ticker, "trained", outcome)

    def record_skipped(self, worker: WorkerId, ticker: str, reason: str) -> bool:
        """The asset cannot be trained by rule; False if the lease is no longer this worker's."""
        return self._settle(worker, ticker, "skipped", {"reason": reason})

    def record_failed(self, worker: WorkerId, ticker: str, error: str) -> bool:
        """Trying the asset again would end the same way; False if the lease is no longer this worker's."""
        return self._settle(worker, ticker, "failed", {"error": error, "kind": "error"})

    def record_error(self, worker: WorkerId, ticker: str, error: str) -> bool:
        """Training raised: the asset waits again, or has failed if it was the last try."""
        if not self._holds(worker, ticker):
            return False
        self._record("error", ticker=ticker, error=error)
        if self.assets[ticker].errors >= MAX_ERRORS:
            self._record("failed", ticker=ticker, error=error, kind="error")
        else:
            self._record("requeued", ticker=ticker, why="error")
        return True

    def charge(self, causes: Mapping[int, str]) -> None:
        """Charge the assets leased by the dead ranks of the current attempt.

        An asset with too many charges is quarantined; the others stay leased until the new group registers, because a
        bystander, or even the dead worker before it died, may have written its folder.

        Args:
            causes: why each dead rank died.
        """
        for asset in self.assets.values():
            lease = asset.lease
            if lease is None or lease.attempt != self.attempt or lease.rank not in causes:
                continue
            if asset.detail.get("event") == "charged":
                continue  # one death is reported at every poll until the group is torn down
            self._record("charged", ticker=asset.ticker, attempt=lease.attempt, rank=lease.rank, why=causes[lease.rank])

    # Events

    def _record(self, event: str, **fields: Any) -> None:
        assert self._ledger is not None, "only the ledger's owner may change anything"
        self._apply(self._ledger.append(event, **fields))

    def _replay(self, event: Event, place: str) -> None:
        """Apply an event read from the ledger.

        Raises:
            RunError: it is none of a run's events, or of an asset that the run does not cover.
        """
        try:
            self._apply(event)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{place} is no entry of this run's ledger: {error!r}",
                hint="the run is damaged, or a newer b3dist wrote it: start a new one",
            ) from error

    def _apply(self, event: Event) -> None:
        self._appliers[event["event"]](event)
        self.events.append(event)

    def _apply_opened(self, event: Event) -> None:
        self.invocation = event["invocation"]
        self.stopped = None
        self.is_fresh = True
        self.fruitless_restarts = 0
        for asset in self.assets.values():
            asset.errors = asset.charges = 0
            if asset.state == "failed":
                asset.state, asset.detail = "waiting", {}

    def _apply_group(self, event: Event) -> None:
        self.attempt = event["attempt"]
        self._num_workers = event["workers"]
        if not self.is_fresh:  # the first group of an invocation is no restart
            self.fruitless_restarts += 1
        self.is_fresh = False

    def _apply_leased(self, event: Event) -> None:
        asset = self.assets[event["ticker"]]
        asset.state, asset.detail = "leased", event
        asset.lease = WorkerId(event["attempt"], event["rank"], event["pid"], event["host"])
        asset.leases += 1

    def _apply_charged(self, event: Event) -> None:
        asset = self.assets[event["ticker"]]
        asset.charges += 1
        asset.detail = event

    def _apply_requeued(self, event: Event) -> None:
        asset = self.assets[event["ticker"]]
        asset.state, asset.lease, asset.detail = "waiting", None, {}

    def _apply_error(self, event: Event) -> None:
        self.assets[event["ticker"]].errors += 1

    def _apply_settled(self, event: Event) -> None:
        asset = self.assets[event["ticker"]]
        asset.state, asset.lease, asset.detail = event["event"], None, event
        asset.invocation = self.invocation
        if event.get("kind") != "quarantined":
            self.fruitless_restarts = 0

    def _apply_stopped(self, event: Event) -> None:
        self.stopped = event["reason"]

    # Rules

    def _is_written(self, ticker: str) -> bool:
        return (self._assets_dir / ticker).is_dir()

    def _holds(self, worker: WorkerId, ticker: str) -> bool:
        asset = self.assets.get(ticker)
        return asset is not None and worker.attempt == self.attempt and asset.lease == worker

    def _settle(self, worker: WorkerId, ticker: str, state: State, detail: Mapping[str, Any]) -> bool:
        if not self._holds(worker, ticker):
            return False
        self._record(state, ticker=ticker, **detail)
        return True

    def _settle_by_folder(self) -> None:
        """Settle every asset that no living worker holds by what is on the disk."""
        for asset in self.assets.values():
            written = self._is_written(asset.ticker)
            if written and asset.state in ("waiting", "leased"):
                self._record("trained", ticker=asset.ticker, adopted=True)
            elif asset.state == "leased" and asset.charges >= MAX_CHARGES:
                error = f"took down its worker {asset.charges} times: {asset.detail.get('why', '')}"
                self._record("failed", ticker=asset.ticker, error=error, kind="quarantined")
            elif asset.state == "leased":
                self._record("requeued", ticker=asset.ticker, why="worker group restarted")
            elif asset.state == "trained" and not written:
                self._record("requeued", ticker=asset.ticker, why="its folder is gone")
