"""All verbs in one place."""

from typing import Annotated

import typer

from b3dist import __version__
from b3dist.cli.check import check
from b3dist.cli.demo import demo
from b3dist.cli.download import download
from b3dist.cli.fleet import fleet
from b3dist.cli.ingest import ingest
from b3dist.cli.pooled import pooled
from b3dist.cli.release import release_app
from b3dist.cli.report import report
from b3dist.cli.runs import runs_app
from b3dist.cli.score import score
from b3dist.cli.serve import serve
from b3dist.cli.simulate import simulate
from b3dist.cli.sweep import sweep
from b3dist.cli.train import train

app = typer.Typer(
    name="b3dist",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train, tune, release and serve one LSTM multi-task model for every asset of B3, on Ray.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"b3dist {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, tune, release and serve one LSTM multi-task model for every asset of B3, on Ray."""


app.command(epilog="Example: b3dist demo --out demo")(demo)
app.command(epilog="Example: b3dist simulate market --assets 24 --sessions 1500 --seed 7")(simulate)
app.command(epilog="Example: b3dist download --years 2022-2024 --day 2025-01-02 --out files")(download)
app.command(epilog="Example: b3dist ingest files --lake lake")(ingest)
app.command(epilog="Example: b3dist check --lake lake --examples 5")(check)
app.command(epilog="Example: b3dist train PETR4 --lake lake --out models --set training.epochs=3")(train)
app.command(epilog="Example: b3dist report --runs runs")(report)
app.command(epilog="Example: b3dist fleet --lake lake --runs runs --tickers PETR4,VALE3")(fleet)
app.command(epilog="Example: b3dist pooled --lake lake --runs runs --workers 2")(pooled)
app.command(epilog="Example: b3dist score --history 2017-01-01:2018-12-31 --out scores.parquet")(score)
app.command(epilog="Example: b3dist sweep --lake lake --runs runs --trials 40 --max-hours 8")(sweep)
app.command(epilog="Example: b3dist serve --release champion --lake lake --runs runs")(serve)
app.add_typer(runs_app)
app.add_typer(release_app)
