"""Live progress of a refit on stderr: a bar on a terminal, a plain line now and then otherwise."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY_S = 5.0


@contextlib.contextmanager
def refit_progress(*, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield what is called with how many assets are refitted, and of how many."""
    console = Console(stderr=True, highlight=False)
    if not shown:
        yield lambda _done, _total: None
        return
    if not console.is_terminal:
        yield _LinePrinter().show
        return
    columns = (TextColumn("refitting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("refitting", total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)


class _LinePrinter:
    """Prints the first and the last line, and one every few seconds between them."""

    def __init__(self) -> None:
        self._last_line = -_LINE_EVERY_S

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S or done == total:
            self._last_line = now
            print(f"refitted {done}/{total} assets on all their rows", file=sys.stderr, flush=True)
