"""`b3dist serve` running in a process of its own, and clients that ask it."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from b3dist.serving.holder import Holder
from tests.serving.desks import Desk

PATIENCE_S = 300.0
"""What takes seconds may take this long: another's work on the machine is no defect."""

Headers = dict[str, str]


class LiveEndpoint:
    """The command, started and ready.

    Args:
        desk: what it serves from; its folder is the command's working folder.
        words: of the command line.
        log: where its stderr goes.
        token: what its environment names as B3DIST_TOKEN; sent with every request from here.
    """

    def __init__(self, desk: Desk, *words: str, log: Path, token: str | None = None) -> None:
        self.desk = desk
        self.port = free_port()
        self.log = log
        self.headers: Headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        command = [sys.executable, "-m", "b3dist", "serve", "--lake", str(desk.lake), "--releases", str(desk.releases)]
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *words],
                cwd=desk.lake.parent,
                stderr=stream,
                stdout=subprocess.PIPE,
                env=environment() | ({} if token is None else {"B3DIST_TOKEN": token}),
            )
        try:
            self.wait_until(lambda: "ready at" in self.said)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        """What the command wrote to stderr."""
        return self.log.read_text(encoding="utf-8")

    def wait_until(self, condition: Callable[[], object]) -> float:
        """Seconds until the condition holds; fails when it does not, or the command ended."""
        started = time.monotonic()
        while not condition():
            assert self.process.poll() is None, self.said
            assert time.monotonic() - started < PATIENCE_S, self.said
            time.sleep(0.05)
        return time.monotonic() - started

    def ask(self, method: str, path: str, body: Any = None, headers: Headers | None = None) -> tuple[int, Any]:
        """Status and JSON of one request on a connection of its own."""
        with contextlib.closing(Connection(self.port, self.headers)) as connection:
            return connection.ask(method, path, body, headers)

    def wait_gone(self, processes: Sequence[psutil.Process]) -> None:
        """Wait for processes to end; fails when one does not."""
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
        assert not alive, [command_of(one) for one in alive]

    def release_id(self) -> str:
        """Release that a replica says it serves."""
        return str(self.ask("GET", "/readyz")[1]["release_id"])

    def processes(self) -> list[psutil.Process]:
        """The command's, Ray's among them."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def replicas(self) -> list[psutil.Process]:
        """Those that serve."""
        return [one for one in self.processes() if "ServeReplica" in " ".join(command_of(one))]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, bytes]:
        """End the command; its exit code and stdout."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        stdout, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, stdout


class Connection:
    """One kept-alive connection, with headers for all of its requests."""

    def __init__(self, port: int, headers: Headers | None = None) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self._headers = {"Content-Type": "application/json", **(headers or {})}

    def close(self) -> None:
        """Let go of it."""
        self._http.close()

    def ask(self, method: str, path: str, body: Any = None, headers: Headers | None = None) -> tuple[int, Any]:
        """Status, and the body as JSON where it is."""
        sent = None if body is None else json.dumps(body).encode()
        self._http.request(method, path, sent, {**self._headers, **(headers or {})})
        response = self._http.getresponse()
        status, content = response.status, response.read()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content


@dataclass
class Load:
    """Clients that ask single tickers and the whole exchange in turn, and compare every answer with known ones."""

    live: LiveEndpoint
    known: dict[str, dict[str, dict[str, Any]]]
    """Release id -> ticker -> row of its score."""
    num_clients: int = 8
    retries: int = 0
    """How often a failed request is sent again."""
    answers: int = 0
    releases_seen: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    """First tries that failed."""
    lost: list[str] = field(default_factory=list)
    """Requests that failed at the last try too."""
    wrong: list[str] = field(default_factory=list)

    def __enter__(self) -> "Load":
        """Start asking."""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.num_clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Finish what is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        tickers, turn = sorted(next(iter(self.known.values()))), number
        with contextlib.closing(Connection(self.live.port, self.live.headers)) as connection:
            while not self._stop.is_set():
                turn += 1
                if turn % 4:
                    self._ask_once(connection, "/v1/predict", {"ticker": tickers[turn % len(tickers)]})
                else:
                    self._ask_once(connection, "/v1/predict/bulk", {"tickers": ["*"]})

    def _ask_once(self, connection: "Connection", path: str, body: Any) -> None:
        """One request, sent again as often as allowed."""
        for attempt in range(self.retries + 1):
            try:
                status, answer = connection.ask("POST", path, body)
            except (OSError, http.client.HTTPException) as error:
                status, answer = 0, repr(error)
                connection.close()  # the next request opens it again
            with self._lock:
                if status == 200:
                    self.answers += 1
                    self._check(answer, answer.get("rows", [answer]))
                    return
                if attempt == 0:
                    self.failures.append(f"{status} {answer}")
                if attempt == self.retries:
                    self.lost.append(f"{status} {answer}")
            time.sleep(0.2)

    def _check(self, answer: Any, rows: Sequence[Any]) -> None:
        release_id = answer["release_id"]
        self.releases_seen.add(release_id)
        for row in rows:
            known = self.known[release_id][row["ticker"]]
            probabilities = row.get("probabilities", {name: row.get(f"p_{name}") for name in ("buy", "sell", "hold")})
            same = row["release_id"] == release_id and row["model_sha256"] == known["model_sha256"]
            same = same and abs(row["return_pred"] - known["return_pred"]) < 1e-6
            same = same and all(abs(value - known[f"p_{name}"]) < 1e-6 for name, value in probabilities.items())
            if not same:
                self.wrong.append(f"{row}, expected {known}")


def known_answers(desk: Desk, *release_ids: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Release id -> ticker -> row, computed in this process."""
    known = {}
    for release_id in release_ids:
        holder = Holder()
        assert holder.take_over(desk.user_config(release_id))
        assert holder.current is not None
        rows = holder.current.scorer.score_all(None, None)[0].to_pylist()
        known[release_id] = {row["ticker"]: row for row in rows}
    return known


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; empty where it just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def free_port() -> int:
    """A port that nobody listens on now; below those that the system hands out, and above those of Ray's workers."""
    for port in random.Random(os.getpid() + time.monotonic_ns()).sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("none of a hundred ports is free")


def environment() -> dict[str, str]:
    """This process's, for a command that is to find no cluster and no token of others."""
    return {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "B3DIST_TOKEN")}
