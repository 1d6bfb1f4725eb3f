"""`b3dist serve`: the endpoint in the foreground, on Ray Serve; follows the alias and the lake."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from b3dist.cli.fleet import Address
from b3dist.cli.options import DEFAULT_LAKE, DEFAULT_RUNS, LakeOption, RunsOption
from b3dist.cli.output import Answer, Debug, Json, answers
from b3dist.cli.release import ReleasesOption, open_store

if TYPE_CHECKING:
    from b3dist.serving.deploy import EndpointOptions
    from b3dist.serving.served import Served

ReleaseName = Annotated[str, typer.Option("--release", help="Release id, or an alias, which is then followed.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; any but loopback needs a token.")]
Port = Annotated[int, typer.Option("--port", help="Port to listen on.")]
Replicas = Annotated[str, typer.Option("--replicas", help="How many, or least:most to scale with the load.")]
CpusPerReplica = Annotated[float, typer.Option("--cpus-per-replica", help="Cores, or the share of one, per replica.")]
GpusPerReplica = Annotated[float, typer.Option("--gpus-per-replica", help="GPUs, or the share of one, per replica.")]
MaxQueue = Annotated[
    int, typer.Option("--max-queue", help="Requests that may wait beyond those the replicas work on; more get 429.")
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="File with the token callers must send (default: B3DIST_TOKEN).")
]
Weights = Annotated[
    Literal["served", "evaluated"],
    typer.Option("--weights", help="Of a refitted release: those for serving, or those its metrics are of."),
]
StaleAfter = Annotated[int, typer.Option("--stale-after", help="Sessions after which an asset's last bar is stale.")]

_LOOK_EVERY_S = 0.5


@answers
def serve(
    release: ReleaseName = "champion",
    lake: LakeOption = DEFAULT_LAKE,
    runs: RunsOption = DEFAULT_RUNS,
    releases: ReleasesOption = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    replicas: Replicas = "1",
    cpus_per_replica: CpusPerReplica = 1.0,
    gpus_per_replica: GpusPerReplica = 0.0,
    max_queue: MaxQueue = 256,
    token_file: TokenFile = None,
    weights: Weights = "served",
    stale_after: StaleAfter = 5,
    address: Address = None,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Answer predictions over HTTP until Ctrl-C; a promote, a rollback or an ingest is taken over without a restart."""
    from b3dist.data.lake import Lake
    from b3dist.serving.deploy import (
        EndpointOptions,
        attaches,
        parse_replicas,
        require_free_port,
        require_known_host,
    )
    from b3dist.serving.served import Served

    if not attaches(address):
        require_known_host(host)
    options = EndpointOptions(
        host=host,
        port=port,
        replicas=parse_replicas(replicas),
        cpus_per_replica=cpus_per_replica,
        gpus_per_replica=gpus_per_replica,
        max_queue=max_queue,
        token_file=token_file,
        address=address,
        debug=debug,
    )
    store = open_store(releases, runs)
    named = Served(releases=store.path, release=release, lake=lake.resolve(), which=weights, stale_after=stale_after)
    # Everything that can be found out in this process is, before a cluster starts.
    _say(f"verifying release {release}")
    assets = len(store.open(release).assets)
    Lake(lake)
    if not options.attaches:
        require_free_port(options)
    return _serve_until_stopped(named, options, assets=assets)


def _serve_until_stopped(named: "Served", options: "EndpointOptions", *, assets: int) -> Answer:
    from b3dist.serving.deploy import running_endpoint
    from b3dist.serving.follow import Follower
    from b3dist.serving.watch import Watch

    started = time.monotonic()
    follower = None
    _say("connecting to Ray" if options.attaches else "starting Ray (about 20 s)")
    try:
        with running_endpoint(options) as endpoint:
            _say(f"warming {assets} assets")
            follower = Follower(endpoint, Watch(named), say=_say)
            follower.start()
            _announce(options)
            while True:
                time.sleep(_LOOK_EVERY_S)
                follower.step()
    except KeyboardInterrupt:
        if follower is None or follower.release is None:
            raise
    _say("stopped")
    return Answer(
        payload={
            "url": options.url,
            "release_id": follower.release,
            "swaps": follower.swaps,
            "seconds": round(time.monotonic() - started, 1),
        }
    )


def _announce(options: "EndpointOptions") -> None:
    token = '-H "Authorization: Bearer $B3DIST_TOKEN" ' if options.has_token else ""
    content = "-H 'Content-Type: application/json' -d '{\"tickers\": [\"*\"]}'"
    _say(f"ready at {options.url}, described at {options.url}/docs; Ctrl-C ends it. Try:")
    typer.echo(f"  curl {token}{content} {options.url}/v1/predict/bulk", err=True)


def _say(line: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)
