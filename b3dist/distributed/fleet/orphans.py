"""Workers that outlive their driver by a moment: a resumed run must not race them for an asset's folder."""

import socket
import time
from pathlib import Path

from b3dist.distributed.assignments import Assignments
from b3dist.errors import RunError

_PATIENCE_S = 30.0


def wait_for_orphans(assignments: Assignments) -> None:
    """Wait until every worker of this machine that still holds a lease is gone; Ray ends them soon after their driver.

    Raises:
        RunError: one of them stays.
    """
    here = socket.gethostname()
    leases = {asset.ticker: asset.lease for asset in assignments.assets.values() if asset.state == "leased"}
    waiting = {lease.pid: ticker for ticker, lease in leases.items() if lease is not None and lease.host == here}
    deadline = time.monotonic() + _PATIENCE_S
    while waiting := {pid: ticker for pid, ticker in waiting.items() if _is_ray_worker(pid)}:
        if time.monotonic() > deadline:
            pid, ticker = next(iter(waiting.items()))
            raise RunError(
                f"worker process {pid} of the run's former driver is still alive with {ticker}",
                hint="wait until it has ended, then resume",
            )
        time.sleep(0.2)


def _is_ray_worker(pid: int) -> bool:
    """Whether the process lives and is a Ray worker, not some other that got its number since."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return command.startswith(b"ray::")  # empty for a zombie
