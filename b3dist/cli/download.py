"""`b3dist download`: B3's public history files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from b3dist.cli.output import Answer, Debug, Json, answers

if TYPE_CHECKING:
    from b3dist.data.download import Progress as Report


def parse_years(text: str) -> tuple[int, ...]:
    """Years of a text such as 2024, 2022-2024 or 2019,2022-2024, ascending.

    Raises:
        typer.BadParameter: anything else, or a year before 1986, when B3's files begin.
    """
    years: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()):
            raise typer.BadParameter(f"{text!r} is not a year or a range of years such as 2022-2024")
        span = range(int(first), int(last) + 1)
        if not span or not 1986 <= span[0] <= span[-1] <= 2100:
            raise typer.BadParameter(f"{piece.strip()!r} must go from an earlier to a later year, 1986 to 2100")
        years.update(span)
    return tuple(sorted(years))


@answers
def download(
    out: Annotated[Path, typer.Option("--out", help="Folder to fill; good files that are there are kept.")],
    years: Annotated[
        str | None, typer.Option("--years", help="2024, 2022-2024 or 2019,2022-2024.", metavar="YEARS")
    ] = None,
    months: Annotated[
        list[datetime] | None,
        typer.Option("--month", formats=["%Y-%m"], metavar="YYYY-MM", help="One month. Repeatable."),
    ] = None,
    days: Annotated[
        list[datetime] | None,
        typer.Option("--day", formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="One session. Repeatable."),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Fetch again what is there: the running year's file grows every session.")
    ] = False,
    base_url: Annotated[str | None, typer.Option("--base-url", help="Another address with the same files.")] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Fetch B3's historical quotes; resumes what was interrupted, verifies every record."""
    from b3dist.data import download as source

    names = [source.year_file(year) for year in parse_years(years)] if years else []
    names += [source.month_file(month.year, month.month) for month in months or []]
    names += [source.day_file(day.date()) for day in days or []]
    if not names:
        raise typer.BadParameter("name what to fetch: --years, --month or --day")
    with _progress_shown() as progress:
        files = source.download(names, out, base_url=base_url or source.BASE_URL, refresh=refresh, progress=progress)

    def show(console: Console) -> None:
        for file in files:
            console.print(f"{file.path}: {file.records:,} records, {file.status}")
        console.print(f"Next: b3dist ingest {out} --lake lake", soft_wrap=True)

    listed = [{"path": str(file.path), "records": file.records, "status": file.status} for file in files]
    return Answer(payload={"files": listed}, show=show)


@contextmanager
def _progress_shown() -> Iterator["Report"]:
    """A bar per file on a terminal, one line per file elsewhere; both on stderr."""
    if not sys.stderr.isatty():
        begun: set[str] = set()

        def announce(name: str, _held: int, total: int | None) -> None:
            if name not in begun:
                begun.add(name)
                size = "unknown size" if total is None else f"{total / 1e6:.1f} MB"
                print(f"fetching {name}, {size}", file=sys.stderr, flush=True)

        yield announce
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, held: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=held, total=total)

        yield advance
