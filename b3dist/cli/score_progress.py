"""Live progress of bulk scoring on stderr: a bar on a terminal, a plain line now and then otherwise."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from b3dist.scoring.bulk import Totals

_LINE_EVERY_S = 5.0


@contextlib.contextmanager
def score_progress(total: int) -> Iterator[Callable[["Totals"], None]]:
    """Yield what is called after each asset.

    Args:
        total: assets there are.
    """
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        columns = (TextColumn("score"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rows]} rows"))
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task("score", total=total, rows=0)
            yield lambda totals: bar.update(task, completed=totals.assets, rows=f"{totals.rows:,}")
        return
    last_line = time.monotonic()

    def show(totals: "Totals") -> None:
        nonlocal last_line
        if time.monotonic() - last_line >= _LINE_EVERY_S:
            last_line = time.monotonic()
            print(f"score: {totals.assets}/{total} assets, {totals.rows:,} rows", file=sys.stderr, flush=True)

    yield show
