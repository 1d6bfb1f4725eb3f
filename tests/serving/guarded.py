"""`b3dist serve` behind a token from its environment, as a user starts it from a terminal."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.serving.live import free_port

START_TIMEOUT_S = 240.0


@dataclass
class Live:
    """A running endpoint."""

    port: int
    token: str
    folder: Path
    """Its working folder: lake, releases."""
    lines: list[str] = field(default_factory=list)
    """What it has said so far."""

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What opens it."""
        return {"Authorization": f"Bearer {self.token}"}


@contextlib.contextmanager
def live_endpoint(folder: Path, release: str, *, token: str = "a-token-for-tests") -> Iterator[Live]:
    """Serve folder/lake and a release of folder/releases until the block ends.

    The process is ended by SIGINT, as Ctrl-C would.
    """
    port = free_port()
    command = [sys.executable, "-m", "b3dist", "serve", "--release", release, "--port", str(port)]
    environment = {**os.environ, "B3DIST_TOKEN": token, "RAY_ADDRESS": "local"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    live = Live(port=port, token=token, folder=folder)
    reader = threading.Thread(target=_collect, args=(process, live.lines), daemon=True)
    reader.start()
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not any("ready at" in line for line in live.lines):
            assert process.poll() is None and time.monotonic() < deadline, "".join(live.lines)
            time.sleep(0.1)
        yield live
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        reader.join(timeout=10)
        assert process.stdout is not None
        process.stdout.close()


def _collect(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
