"""`b3dist ingest`: COTAHIST files into a lake."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from b3dist.cli.options import DEFAULT_LAKE, LakeOption
from b3dist.cli.output import DONE, FAILED, Answer, Debug, Json, answers

if TYPE_CHECKING:
    from b3dist.data.lake import IngestResult

_QUIET_S: Final = 2.0
"""Nothing is shown of what takes less."""
_LOG_EVERY_S: Final = 5.0
_NAMED: Final = 5
"""So many files or tickers are named; of the others only the number is told."""


@answers
def ingest(
    sources: Annotated[list[Path], typer.Argument(help="COTAHIST files (.TXT, .ZIP, .gz) or folders of them.")],
    lake: LakeOption = DEFAULT_LAKE,
    universe: Annotated[
        Literal["shares", "funds", "bdrs", "all"] | None,
        typer.Option(help="shares (with units), funds, bdrs or all. Default: the lake's own; shares for a new one."),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(help="CSV ticker,ex_date,factor: share events laid over the detected ones, now and later."),
    ] = None,
    renames: Annotated[
        Path | None, typer.Option(help="CSV old,new,date: tickers whose histories are joined, now and later.")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Ingest the good files even if others are refused (exit code 1).")
    ] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Put COTAHIST files into the lake: each file whole or not at all; known files are not read again."""
    from b3dist.data.lake import ingest as put_into_lake

    with _Display() as display:
        result = put_into_lake(
            sources,
            lake,
            universe=universe,
            events_file=events,
            renames_file=renames,
            keep_going=keep_going,
            progress=display.update,
        )
    for sentence in _warnings(result):
        print(f"b3dist: {sentence}", file=sys.stderr)
    payload, refused = result.to_dict(), [file for file in result.files if file.status == "refused"]
    if refused:
        payload["error"] = f"{len(refused)} of {len(result.files)} files refused, the first: {refused[0].error}"
        payload["hint"] = "the other files are in the lake; get the refused ones again from B3"
    return Answer(payload=payload, show=lambda console: _show(console, result), exit_code=FAILED if refused else DONE)


def _show(console: Console, result: "IngestResult") -> None:
    numbers = (Column(name, justify="right") for name in ("records", "kept", "bars in the lake"))
    table = Table(Column("file", overflow="fold", no_wrap=True), *numbers, "status", box=None)
    for file in result.files:
        counts = (f"{number:,}" for number in (file.records, file.kept, file.bars))
        table.add_row(Path(file.path).name, *counts, file.error or file.status)
    for path in result.ignored:
        table.add_row(Path(path).name, "", "", "", "ignored: no COTAHIST file")
    console.print(table)
    others = sum(file.records - file.kept for file in result.files)
    if others:
        console.print(f"{others:,} records of other instruments left out (universe: {result.universe})", markup=False)
    classes = ", ".join(f"{name} {count:,}" for name, count in result.classes.items())
    console.print(
        f"\nThe lake holds {result.bars:,} bars of {result.tickers:,} tickers"
        f" ({result.universe}), {result.first_session} to {result.last_session}."
        f"\nBars by class: {classes or 'none'}\n{result.seconds:.1f} s"
    )


def _warnings(result: "IngestResult") -> list[str]:
    """One sentence per new file that changed nothing, or that pushed tickers out of the lake."""
    sentences = []
    for file in result.files:
        name = Path(file.path).name
        if file.repeated is not None:
            one, again, (first, second) = file.repeated, file.repeated.count > 1, file.repeated.lines
            sentences.append(
                f"{name} has {one.count:,} {'bars' if again else 'bar'} twice, and the last record counts:"
                f" {one.ticker} on {one.session} is on lines {first:,} and {second:,}"
                f"{' (the first of them)' if again else ''}"
            )
        if file.status == "ingested" and file.kept and not file.bars:
            sentences.append(f"{name} gives the lake no bar: files generated later hold all of its sessions")
        elif file.tickers_gone:
            gone = f"{', '.join(file.tickers_gone[:_NAMED])}{', ...' if len(file.tickers_gone) > _NAMED else ''}"
            sentences.append(
                f"{name} took {file.sessions_taken:,} sessions over from files generated earlier; "
                f"{len(file.tickers_gone):,} tickers are gone from the lake by that ({gone}): "
                "if they belong to another market, ingest that into another --lake"
            )
    more = len(sentences) - _NAMED
    return sentences if more <= 0 else [*sentences[:_NAMED], f"{more:,} more files of that kind, see --json"]


class _Display:
    """Progress on stderr once the work takes longer: a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._logged = self._started + _QUIET_S - _LOG_EVERY_S
        self._bar: Progress | None = None
        self._tasks: dict[Path, int] = {}

    def __enter__(self) -> "_Display":
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, path: Path, share: float) -> None:
        """Show that this share of the file is read."""
        now = time.monotonic()
        if now - self._started < _QUIET_S:
            return
        if not sys.stderr.isatty():
            if now - self._logged >= _LOG_EVERY_S:
                self._logged = now
                print(f"reading {path}: {share:.0%}", file=sys.stderr, flush=True)
            return
        if self._bar is None:
            columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        if path not in self._tasks:
            for earlier in self._tasks.values():
                self._bar.remove_task(earlier)  # type: ignore[arg-type]
            self._tasks = {path: self._bar.add_task(path.name, total=1.0)}
        self._bar.update(self._tasks[path], completed=share)  # type: ignore[arg-type]
