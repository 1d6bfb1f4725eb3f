"""`b3dist simulate`: a B3-like market with a known truth."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from b3dist.cli.output import Answer, Debug, Json, answers


@answers
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write; new, empty, or holding a former simulation.")],
    assets: Annotated[int, typer.Option("--assets", help="Number of tickers.")] = 24,
    sessions: Annotated[int, typer.Option("--sessions", help="Exchange sessions, ending on 2018-12-28.")] = 1500,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all random numbers.")] = 7,
    signal: Annotated[
        float, typer.Option("--signal", help="Population correlation of the planted part with the 2-session return.")
    ] = 0.1,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Write a B3-like market as COTAHIST_AYYYY.ZIP files, and truth.json: share events and the planted signal."""
    from b3dist.data.simulator import simulate as write_simulation

    done = write_simulation(out, assets=assets, sessions=sessions, seed=seed, signal=signal)

    def show(console: Console) -> None:
        console.print(
            f"{done.assets} assets x {done.sessions} sessions, {done.records:,} records "
            f"in {len(done.files)} files under {out}",
            soft_wrap=True,
        )
        console.print(f"What is true of them: {done.truth}", soft_wrap=True)
        console.print(f"Next: b3dist ingest {out} --lake simlake  (a lake of its own: not real prices)", soft_wrap=True)

    payload = {
        "files": [str(path) for path in done.files],
        "assets": done.assets,
        "sessions": done.sessions,
        "records": done.records,
        "truth": str(done.truth),
    }
    return Answer(payload=payload, show=show)
