"""What the fleet's tests share: a quick configuration, and looking at a run's folder."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.ledger import Event, read_ledger
from b3dist.distributed.selection import new_run
from b3dist.run_folder import RunFolder

QUICK = ("data.min_sessions=300", "training.epochs=2")
"""An asset of the small lake takes a tenth of a second."""
SLOW = ("data.min_sessions=300", "training.epochs=150", "training.patience=150")
"""An asset takes seconds: time enough to kill whoever trains it."""
PATIENCE_S = 300.0
"""What takes seconds may take this long: another's work on the machine is no defect."""


def start_run(lake: Path, runs: Path, *overrides: str) -> RunFolder:
    """A new run over a lake's assets."""
    return new_run(Lake(lake), runs, Config().with_overrides(overrides or QUICK))


def start_driver(*words: str) -> subprocess.Popen[str]:
    """A verb in a process of its own, on a private cluster whatever the surroundings name."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "b3dist", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def events(run: RunFolder, *names: str) -> list[Event]:
    """The ledger's events of these names."""
    return [event for event in read_ledger(run.ledger) if event["event"] in names]


def weights(run: RunFolder) -> dict[str, str]:
    """sha256 of every trained asset's model.pt."""
    return {
        folder.name: hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest() for folder in run.assets.iterdir()
    }


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder with its sha256 and time of change: two equal answers mean nothing was touched."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def wait_for[T](look: Callable[[], T | None], *, timeout_s: float = PATIENCE_S) -> T:
    """What `look` returns as soon as it is something."""
    deadline = time.monotonic() + timeout_s
    while (found := look()) is None or found is False:
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


def kill_while(driver: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
    """SIGKILL a driver at a moment when something holds that only the driver changes.

    It is stopped before the last look, so that what was seen is still so when it dies, however slow this process is.
    """

    def caught() -> bool:
        assert driver.poll() is None, driver.communicate()
        if not holds():
            return False
        driver.send_signal(signal.SIGSTOP)
        wait_for(lambda: psutil.Process(driver.pid).status() == psutil.STATUS_STOPPED)
        if not holds():
            driver.send_signal(signal.SIGCONT)
            return False
        return True

    wait_for(caught)
    driver.kill()
    driver.communicate(timeout=PATIENCE_S)


def workers_below(pid: int, name: str) -> list[psutil.Process]:
    """Processes below another whose title holds the name that Ray gives them, oldest first."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            if name in " ".join(process.cmdline()):
                found.append(process)
    return sorted(found, key=lambda process: process.create_time())


class Meanwhile(threading.Thread):
    """Does something while the test's thread is busy; an error in it fails the test at `done`."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Act, and keep what went wrong."""
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001  handed to the test's thread
            self._error = error

    def done(self) -> None:
        """Wait for the end and raise what went wrong."""
        self.join(timeout=PATIENCE_S)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
