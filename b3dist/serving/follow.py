"""Keeping a running endpoint on what should be served: a promote, a rollback or an ingest is taken over in place."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol

from b3dist.errors import ServingError
from b3dist.serving.served import Served
from b3dist.serving.watch import Watch

RETRY_AFTER_S = 60.0
"""What could not be taken over is asked for again: a network file system recovers, a lake is repaired."""
_VERDICT_TIMEOUT_S = 120.0


class Deployed(Protocol):
    """The part of `deploy.Endpoint` that is needed here."""

    def deploy(self, served: Served) -> None:
        """Ask for this to be served."""

    def statuses(self) -> list[dict[str, Any]]:
        """`Holder.status` of every replica."""

    def wait_until_up(self) -> None:
        """Wait for the application to run."""

    def is_running(self) -> bool:
        """Whether the last deployment is done."""

    def num_replicas(self) -> int:
        """Replicas that run now."""


class Follower:
    """Deploys what the watch sees and says what became of it.

    Args:
        endpoint: the running endpoint.
        watch: what should be served.
        say: takes one line for the user.
    """

    def __init__(self, endpoint: Deployed, watch: Watch, *, say: Callable[[str], None]) -> None:
        self._endpoint = endpoint
        self._watch = watch
        self._say = say
        self._asked = watch.look()
        self._asked_at = 0.0
        self._pending = False
        self._failed = False
        self._error = ""
        self._blind = ""
        self._num_replicas = 0
        self.release: str | None = None
        """Release that all replicas served when last asked."""
        self.swaps = 0
        """Changes taken over since the start."""

    def start(self) -> None:
        """Deploy for the first time.

        Raises:
            ServingError: it cannot be served, and why.
        """
        self._deploy(self._asked)
        self._endpoint.wait_until_up()
        while self._pending:
            self._hear()
            if self._failed:
                raise ServingError(f"the endpoint cannot serve {self._asked.release}: {self._error}")
            time.sleep(0.05)
        self.swaps = 0
        self._num_replicas = self._endpoint.num_replicas()

    def step(self) -> None:
        """Look once; to be called about every second."""
        seen = self._look()
        if seen != self._asked:
            self._deploy(dataclasses.replace(seen, fallback=self.release, attempt=0))
        elif self._pending:
            self._hear()
        elif self._failed and time.monotonic() - self._asked_at > RETRY_AFTER_S:
            self._deploy(dataclasses.replace(self._asked, attempt=self._asked.attempt + 1))
        self._count_replicas()

    def _look(self) -> Served:
        """What should be served now; what was asked for last where that cannot be found out, which is told once."""
        try:
            seen = self._watch.look()
        except Exception as error:  # noqa: BLE001  whatever a damaged file can raise: what is served serves on
            reason = f"{type(error).__name__}: {error}"
            if reason != self._blind:
                self._blind = reason
                still = f"; {self.release} serves on" if self.release else ""
                self._say(f"cannot take over what is named now: {reason}{still}")
            return self._asked
        self._blind = ""
        return dataclasses.replace(seen, fallback=self._asked.fallback, attempt=self._asked.attempt)

    def _count_replicas(self) -> None:
        """Say so when a replica died, came back, or the load changed their number."""
        found = self._endpoint.num_replicas()
        if found != self._num_replicas:
            self._num_replicas = found
            self._say(f"{found} replicas are running" if found != 1 else "1 replica is running")

    def _deploy(self, served: Served) -> None:
        self._asked, self._asked_at, self._pending, self._failed = served, time.monotonic(), True, False
        self._endpoint.deploy(served)

    def _hear(self) -> None:
        """Ask the replicas what became of the last deployment, once Serve is done with it."""
        late = time.monotonic() - self._asked_at > _VERDICT_TIMEOUT_S
        if not self._endpoint.is_running() and not late:
            return
        statuses = self._endpoint.statuses()
        asked = self._asked.to_user_config()
        decided = [status for status in statuses if status["asked"] == asked]
        if not late and (not decided or len(decided) < len(statuses)):
            return
        self._pending = False
        refusals = [status["last_error"] for status in decided if status["last_error"]]
        if refusals or not decided:
            self._failed = True
            self._error = refusals[0] if refusals else f"no replica answered within {_VERDICT_TIMEOUT_S:g} s"
            still = f"; {self.release} serves on" if self.release else ""
            self._say(f"cannot take over {self._described()}: {self._error}{still}")
            return
        self.swaps += 1
        self.release = decided[0]["release_id"]
        self._say(f"serving {self._described()}, sessions up to {decided[0]['newest_session']}")

    def _described(self) -> str:
        alias = f" ({self._asked.alias})" if self._asked.alias else ""
        lake = (self._asked.lake_manifest_hash or "unreadable")[:12]
        return f"release {self._asked.release}{alias} on lake {lake}"
