"""A load generator for HTTP/1.1 that costs little: raw sockets on one event loop, in a process of its own.

python bench/http_load.py --url http://127.0.0.1:8000/v1/predict --bodies bodies.json --clients 16 --seconds 10

Every client sends its next request when its last answer is complete. Prints one JSON object.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit


class Client(asyncio.Protocol):
    """One connection that is kept alive; requests are taken from a list in turn."""

    def __init__(self, requests: Sequence[bytes], first: int, until: float, most: int) -> None:
        self._requests = requests
        self._next = first
        self._until = until
        self._most = most
        self._buffer = b""
        self._sent_at = 0.0
        self.latencies: list[float] = []
        """Seconds from the request's first byte sent to the answer's last byte received."""
        self.statuses: Counter[str] = Counter()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        """Count an answer that was cut off."""
        if not self.done.done():
            self.statuses["lost"] += 1
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take note of a complete answer and send the next request."""
        self._buffer = self._buffer + data if self._buffer else data
        if not _is_complete(self._buffer):
            return
        self.latencies.append(time.perf_counter() - self._sent_at)
        self.statuses[self._buffer[9:12].decode()] += 1
        self._buffer = b""
        if len(self.latencies) < self._most and time.perf_counter() < self._until:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()

    def _send(self) -> None:
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self._sent_at = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]


def _is_complete(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    head = head.lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        return len(body) >= int(head[at + 17 :].split(b"\r\n", 1)[0])
    return body.endswith(b"0\r\n\r\n") if b"chunked" in head else True


def request_bytes(url: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    """A request, POST if it has a body."""
    parts = urlsplit(url)
    lines = [f"{'GET' if body is None else 'POST'} {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class Answerer(asyncio.Protocol):
    """A server that answers whatever it gets at once; requests must come in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        """Answer."""
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")  # type: ignore[attr-defined]


async def answer_forever() -> None:
    """Print the server's address and answer until killed."""
    server = await asyncio.get_running_loop().create_server(Answerer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
    await server.serve_forever()


async def load(
    url: str, requests: Sequence[bytes], *, clients: int, seconds: float, most: int
) -> tuple[list[float], Counter[str], float]:
    """Latencies in seconds, answers by status, and how long it took."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made = [
        (
            await loop.create_connection(
                lambda n=n: Client(requests, n, started + seconds, most), parts.hostname, parts.port
            )
        )[1]
        for n in range(clients)
    ]
    await asyncio.gather(*(client.done for client in made))
    taken = time.perf_counter() - started
    latencies = [latency for client in made for latency in client.latencies]
    return latencies, sum((client.statuses for client in made), Counter()), taken


def summary(latencies: Sequence[float], statuses: Counter[str], seconds: float) -> dict[str, object]:
    """Rate per second and percentiles in ms."""
    if len(latencies) < 2:
        return {"requests": len(latencies), "statuses": dict(statuses)}
    hundredths = statistics.quantiles(latencies, n=100, method="inclusive")
    return {
        "requests": len(latencies),
        "per_second": round(len(latencies) / seconds, 1),
        "p10_ms": round(1000 * hundredths[9], 3),
        "p50_ms": round(1000 * hundredths[49], 3),
        "p90_ms": round(1000 * hundredths[89], 3),
        "p99_ms": round(1000 * hundredths[98], 3),
        "max_ms": round(1000 * max(latencies), 3),
        "statuses": dict(statuses),
    }


def main() -> None:
    """Parse, load, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answer", action="store_true", help="be a server that does nothing: the client's own ceiling")
    parser.add_argument("--url")
    parser.add_argument("--bodies", type=Path, help="JSON list of bodies, sent in turn; none: GET")
    parser.add_argument("--header", action="append", default=[], help="Name: value")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--most", type=int, default=10**9, help="requests per client")
    arguments = parser.parse_args()
    if arguments.answer:
        asyncio.run(answer_forever())
    headers = {"Content-Type": "application/json"}
    headers |= dict(line.split(": ", 1) for line in arguments.header)
    bodies = (
        [json.dumps(body).encode() for body in json.loads(arguments.bodies.read_text())] if arguments.bodies else [None]
    )
    requests = [request_bytes(arguments.url, body, headers) for body in bodies]
    outcome = asyncio.run(
        load(arguments.url, requests, clients=arguments.clients, seconds=arguments.seconds, most=arguments.most)
    )
    print(json.dumps(summary(*outcome)))


if __name__ == "__main__":
    main()
