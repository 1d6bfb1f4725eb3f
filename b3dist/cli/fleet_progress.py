"""Live progress of a fleet on stderr: a bar on a terminal, a plain line now and then otherwise."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from b3dist.cli.time_left import clock
from b3dist.distributed.summary import FleetProgress

_LINE_EVERY_S = 5.0


@contextlib.contextmanager
def fleet_progress() -> Iterator[Callable[[FleetProgress], None]]:
    """Yield what `drive_fleet` calls with each moment of the run; say at once what takes its first seconds."""
    print("starting Ray (about 15 s)", file=sys.stderr, flush=True)
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _LinePrinter().show
        return
    columns = (TextColumn("fleet"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("fleet", total=None, detail="starting workers")

        def show(progress: FleetProgress) -> None:
            bar.update(task, total=progress.total, completed=progress.settled, detail=describe(progress))

        yield show


def describe(progress: FleetProgress) -> str:
    """Done, failed, skipped, speed and time left, in one line."""
    if not progress.settled and not progress.in_flight:
        return "starting workers"
    parts = [f"{progress.trained} trained", f"{progress.failed} failed", f"{progress.skipped} skipped"]
    if progress.already_done:
        parts.append(f"{progress.already_done} done before")
    if progress.windows_per_s:
        parts.append(f"{progress.windows_per_s:,.0f} windows/s")
    if progress.left_s is not None:
        parts.append(f"{clock(progress.left_s)} left")
    return ", ".join(parts)


class _LinePrinter:
    """Prints a line when something was settled, but not more often than every few seconds."""

    def __init__(self) -> None:
        self._last_line = 0.0
        self._last_settled = -1

    def show(self, progress: FleetProgress) -> None:
        now, complete = time.monotonic(), progress.settled == progress.total
        due = now - self._last_line >= _LINE_EVERY_S or complete
        if progress.settled == self._last_settled or not due:
            return
        self._last_line, self._last_settled = now, progress.settled
        print(f"fleet: {progress.settled}/{progress.total}: {describe(progress)}", file=sys.stderr, flush=True)
