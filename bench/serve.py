"""The endpoint beside an echo on the same proxy in the same run, and beside its own handler called without Ray.

OMP_NUM_THREADS=1 python bench/serve.py --releases releases --release champion --lake lake
OMP_NUM_THREADS=1 python bench/serve.py ... --soak           # memory over 100,000 requests
RAY_SERVE_THROUGHPUT_OPTIMIZED=1 python bench/serve.py ...   # Serve's switches are taken from the environment

With RAY_SERVE_ENABLE_HA_PROXY=1 Serve listens on all interfaces, so run it where there is only loopback (and a token):
unshare -rn bash -c 'ip link set lo up; RAY_SERVE_ENABLE_HA_PROXY=1 B3DIST_TOKEN=bench python bench/serve.py ...'

Prints one JSON object. Rounds of echo and endpoint alternate, so that both meet the same machine.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from b3dist.serving.deploy import APPLICATION, Endpoint, EndpointOptions, running_endpoint, serve_config
from b3dist.serving.follow import Follower
from b3dist.serving.served import Served
from b3dist.serving.watch import Watch

ROOT = Path(__file__).parents[1]
ARROW = "application/vnd.apache.arrow.stream"
ECHO_ROUTE = "/echo"
SERVE_SWITCHES = ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_ENABLE_HA_PROXY")

Figures = dict[str, Any]


class WithEcho(Endpoint):
    """The endpoint's deployment with the echo beside it, behind the same proxy."""

    def deploy(self, served: Served) -> None:
        """Both applications in one config, as a config deploy removes what it does not name."""
        from ray.serve.schema import ServeDeploySchema

        config = serve_config(served, self._options)
        limits = {name: config["applications"][0]["deployments"][0][name] for name in ("max_ongoing_requests",)}
        echo = {"name": "Echo", "num_replicas": 1, "ray_actor_options": {"num_cpus": 0.5}, **limits}
        application = {
            "name": "echo",
            "route_prefix": ECHO_ROUTE,
            "import_path": "bench.echo_app:build",
            "deployments": [echo],
        }
        config["applications"].append(application)
        self._client.deploy_apps(ServeDeploySchema.model_validate(config))


@contextlib.contextmanager
def both_running(served: Served, options: EndpointOptions) -> Iterator[None]:
    """The endpoint, warm, and the echo."""
    os.environ["PYTHONPATH"] = str(ROOT)  # for the replicas of bench.echo_app
    with running_endpoint(options) as endpoint:
        Follower(WithEcho(endpoint._client, options), Watch(served), say=log).start()
        from ray import serve

        while serve.status().applications["echo"].status != "RUNNING":
            time.sleep(0.1)
        yield


def ask(url: str, body: Any, **settings: Any) -> Figures:
    """What the load generator measures, in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(body if isinstance(body, list) else [body], file)
        file.flush()
        command = [sys.executable, str(ROOT / "bench" / "http_load.py"), "--url", url, "--bodies", file.name]
        if "B3DIST_TOKEN" in os.environ:
            command += ["--header", f"Authorization: Bearer {os.environ['B3DIST_TOKEN']}"]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: Figures = json.loads(done.stdout)
    assert set(figures["statuses"]) <= {"200"}, figures
    return figures


def alternating(urls: dict[str, str], body: Any, *, rounds: int, **settings: Any) -> Figures:
    """Each in turn, `rounds` times; the medians of the rounds."""
    found: dict[str, list[Figures]] = {name: [] for name in urls}
    for _ in range(rounds):
        for name, url in urls.items():
            found[name].append(ask(url, body, **settings))
    return {
        name: {key: statistics.median(one[key] for one in runs) for key in runs[0] if key != "statuses"}
        for name, runs in found.items()
    }


def in_process(served: Served, tickers: list[str], *, seconds: float) -> Figures:
    """The same application called in this process: no Ray, no socket; p50 and p99 in ms."""
    import torch

    from b3dist.serving.api import create_api
    from b3dist.serving.catalogue import Catalogues
    from b3dist.serving.holder import Holder
    from b3dist.serving.replies import Question, Reply, answer_batch

    torch.set_num_threads(1)
    holder = Holder()
    assert holder.take_over(served.to_user_config()), holder.last_error
    catalogues = Catalogues(holder)

    async def reply(question: Question) -> Reply:
        return answer_batch(catalogues, [question])[0]

    api = create_api(catalogues, reply)

    async def call(path: str, body: Any, accept: str = "*/*") -> int:
        headers = [(b"content-type", b"application/json"), (b"accept", accept.encode())]
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope |= {"headers": headers, "http_version": "1.1", "scheme": "http", "server": ("x", 80), "root_path": ""}
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: Any) -> None:
            sent.append(message)

        await api(scope, receive, send)
        return int(sent[0]["status"])

    async def timed(*arguments: Any) -> Figures:
        latencies, until = [], time.perf_counter() + seconds
        while time.perf_counter() < until:
            started = time.perf_counter()
            assert await call(*arguments) == 200
            latencies.append(time.perf_counter() - started)
        cuts = statistics.quantiles(latencies, n=100, method="inclusive")
        return {"p50_ms": round(1000 * cuts[49], 3), "p99_ms": round(1000 * cuts[98], 3)}

    async def all_of_them() -> Figures:
        return {
            "one_ticker": await timed("/v1/predict", {"ticker": tickers[0]}),
            "bulk_json": await timed("/v1/predict/bulk", {"tickers": ["*"]}),
            "bulk_arrow": await timed("/v1/predict/bulk", {"tickers": ["*"]}, ARROW),
        }

    return asyncio.run(all_of_them())


def client_ceiling(seconds: float) -> Figures:
    """The load generator against a server that only answers: what it could measure at most."""
    command = [sys.executable, str(ROOT / "bench" / "http_load.py"), "--answer"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            return {f"clients_{clients}": ask(url, {}, clients=clients, seconds=seconds) for clients in (1, 16)}
        finally:
            server.terminate()


def speed(url: str, served: Served, tickers: list[str], *, seconds: float, rounds: int) -> Figures:
    """Everything but the soak."""
    urls = {"echo": f"{url}{ECHO_ROUTE}/", "predict": f"{url}/v1/predict"}
    single = [{"ticker": ticker, "as_of": None} for ticker in tickers]
    for warm in urls.values():
        ask(warm, single, clients=16, seconds=4)
    figures: Figures = {}
    for clients in (1, 16):
        one = alternating(urls, single, rounds=rounds, clients=clients, seconds=seconds)
        one["p50_ratio"] = round(one["predict"]["p50_ms"] / one["echo"]["p50_ms"], 3)
        one["rate_ratio"] = round(one["predict"]["per_second"] / one["echo"]["per_second"], 3)
        figures[f"clients_{clients}"] = one
    bulk, everything = f"{url}/v1/predict/bulk", {"tickers": ["*"], "as_of": None}
    figures["bulk_json"] = ask(bulk, everything, clients=1, seconds=seconds)
    figures["bulk_arrow"] = ask(bulk, everything, clients=1, seconds=seconds, header=f"Accept: {ARROW}")
    figures["in_process"] = in_process(served, tickers, seconds=seconds / 2)
    figures["client_ceiling"] = client_ceiling(seconds / 2)
    return figures


def soak(url: str, tickers: list[str], *, requests: int) -> Figures:
    """Memory of proxy and replica before and after many requests, in MB; a tenth of them warm up first."""
    single = [{"ticker": ticker, "as_of": None} for ticker in tickers]
    ask(f"{url}/v1/predict", single, clients=16, seconds=3600, most=requests // 10 // 16)
    before = memory_mb()
    load = ask(f"{url}/v1/predict", single, clients=16, seconds=3600, most=requests // 16)
    after = memory_mb()
    growth = {name: round(after[name] - before[name], 1) for name in before}
    return {"load": load, "before_mb": before, "after_mb": after, "growth_mb": growth}


def memory_mb() -> dict[str, float]:
    """Resident MB that no other process shares, of Serve's processes."""
    wanted = {"proxy": "ProxyActor", "replica": f"ServeReplica:{APPLICATION}", "controller": "ServeController"}
    found = {}
    for process in psutil.Process().children(recursive=True):
        title = " ".join(process.cmdline())
        for name, part in wanted.items():
            if part in title:
                found[name] = round(process.memory_full_info().uss / 2**20, 1)
    return found


def log(line: str) -> None:
    """To stderr."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, default=Path("releases"))
    parser.add_argument("--release", default="champion")
    parser.add_argument("--lake", type=Path, default=Path("lake"))
    parser.add_argument("--port", type=int, default=8763)
    parser.add_argument("--seconds", type=float, default=6.0, help="of every measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", action="store_true", help="memory instead of speed")
    parser.add_argument("--requests", type=int, default=100_000, help="of the soak")
    arguments = parser.parse_args()
    figures: Figures = {
        "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "switches": {name: os.environ.get(name, "0") for name in SERVE_SWITCHES},
    }
    options = EndpointOptions(port=arguments.port, cpus_per_replica=0.5)
    served = Served(releases=arguments.releases.resolve(), release=arguments.release, lake=arguments.lake.resolve())
    with both_running(served, options):
        from b3dist.serving.holder import Holder

        holder = Holder()
        holder.take_over(served.to_user_config())
        assert holder.current is not None, holder.last_error
        tickers = holder.current.scorer.score_all(None, None)[0]["ticker"].to_pylist()
        figures["assets"] = len(tickers)
        if arguments.soak:
            figures["soak"] = soak(options.url, tickers, requests=arguments.requests)
        else:
            figures |= speed(options.url, served, tickers, seconds=arguments.seconds, rounds=arguments.rounds)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
