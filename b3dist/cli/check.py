"""`b3dist check`: the health of a lake's data."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from b3dist.cli.options import DEFAULT_LAKE, LakeOption
from b3dist.cli.output import Answer, Debug, Json, answers

if TYPE_CHECKING:
    import pandas as pd

Examples = Annotated[int, typer.Option("--examples", min=0, help="Rows shown of each kind; --json holds all.")]


@answers
def check(
    lake: LakeOption = DEFAULT_LAKE, examples: Examples = 3, json_output: Json = False, debug: Debug = False
) -> Answer:
    """Report share events, missing sessions, freak returns, stale or zero quotes, gaps and likely renames."""
    from b3dist.data.health import COLUMNS, find_problems
    from b3dist.data.lake import Lake

    opened = Lake(lake)
    tickers, events = opened.tickers(), opened.events()
    num_tickers = len(tickers)
    with _said(f"checking {tickers['num_sessions'].sum():,} bars of {num_tickers} tickers"):
        problems = find_problems(opened.all_bars(COLUMNS))
    payload = {
        "tickers": num_tickers,
        "events": [
            {"ticker": ticker, "ex_date": f"{ex_date:%Y-%m-%d}", "factor": factor, "mark": mark}
            for ticker, ex_date, factor, mark in _rows(events, "ticker", "ex_date", "factor", "mark")
        ],
        "problems": [
            {"ticker": ticker, "session": f"{session:%Y-%m-%d}", "kind": kind, "detail": detail}
            for ticker, session, kind, detail in _rows(problems, "ticker", "session", "kind", "detail")
        ],
    }
    return Answer(payload=payload, show=lambda console: _show(console, num_tickers, events, problems, examples))


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """Say on stderr what takes its time: a spinner on a terminal, a line elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.print(what)
        yield
        return
    with console.status(what):
        yield


def _rows(frame: "pd.DataFrame", *columns: str) -> list[tuple[object, ...]]:
    return list(zip(*(frame[column].tolist() for column in columns), strict=True))


def _show(console: Console, num_tickers: int, events: "pd.DataFrame", problems: "pd.DataFrame", examples: int) -> None:
    from b3dist.data.health import KINDS

    console.print(f"{num_tickers} tickers, {len(events)} share events, {len(problems)} things to look at")
    if len(events) and examples:
        _show_events(console, events, examples)
    for kind, meaning in KINDS.items():
        of_kind = problems[problems["kind"] == kind]
        if len(of_kind):
            _show_kind(console, f"{kind} ({len(of_kind)}): {meaning}", of_kind, examples)
    if max(len(events), len(problems)) > examples:
        console.print("--json lists everything, --examples N shows more.")


def _show_events(console: Console, events: "pd.DataFrame", examples: int) -> None:
    newest = events.sort_values("ex_date", kind="stable").tail(examples)
    table = Table("ticker", "ex-date", "new shares per old", "mark", title=f"share events ({len(events)}), the newest")
    for ticker, ex_date, factor, mark in _rows(newest, "ticker", "ex_date", "factor", "mark"):
        table.add_row(str(ticker), f"{ex_date:%Y-%m-%d}", f"{factor:.6g}", str(mark))
    console.print(table)


def _show_kind(console: Console, title: str, of_kind: "pd.DataFrame", examples: int) -> None:
    if not examples:
        console.print(title)
        return
    table = Table("ticker", "session", "detail", title=title, title_justify="left")
    chosen = of_kind.assign(again=of_kind.duplicated("ticker")).sort_values("again", kind="stable").head(examples)
    for ticker, session, detail in _rows(chosen, "ticker", "session", "detail"):
        table.add_row(str(ticker), f"{session:%Y-%m-%d}", str(detail))
    if len(of_kind) > examples:
        table.add_row("...", "", f"{len(of_kind) - examples} more of {of_kind['ticker'].nunique()} ticker(s) in all")
    console.print(table)
