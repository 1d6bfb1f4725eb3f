"""Live progress of a sweep on stderr: a bar on a terminal, a plain line now and then otherwise."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from b3dist.cli.time_left import TimeLeft, clock

if TYPE_CHECKING:
    from b3dist.distributed.sweep.progress import SweepProgress

_LINE_EVERY_S = 5.0


@contextlib.contextmanager
def sweep_progress() -> Iterator[Callable[["SweepProgress"], None]]:
    """Yield what `drive_sweep` calls with each moment of the sweep; say at once what takes its first seconds."""
    print("starting Ray (about 15 s)", file=sys.stderr, flush=True)
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _LinePrinter().show
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("search", total=None, detail="starting workers")

        pace = TimeLeft()

        def show(progress: "SweepProgress") -> None:
            done, total = counts(progress)
            left = _within_budget(progress, pace.seconds(progress.stage, done, total))
            detail = describe(progress, left_s=left)
            bar.update(task, description=stage_in_words(progress), total=total, completed=done, detail=detail)

        yield show


def counts(progress: "SweepProgress") -> tuple[int, int]:
    """Done and total of the stage: trials of the search, trainings of what follows it."""
    searching = progress.stage == "search"
    return (progress.settled, progress.trials) if searching else (progress.done, progress.total)


def stage_in_words(progress: "SweepProgress") -> str:
    """`search (1 of 3)`."""
    return f"{progress.stage} ({progress.phases.index(progress.stage) + 1} of {len(progress.phases)})"


def describe(progress: "SweepProgress", *, left_s: float | None = None) -> str:
    """How trials ended, the best beside trial 0, and the stage's time left, in one line."""
    left = [] if left_s is None else [f"{clock(left_s)} left of this phase"]
    if progress.stage != "search":
        return ", ".join(["trainings", *left])
    parts = [f"{progress.complete} complete", f"{progress.pruned} stopped early", f"{progress.failed} failed"]
    if progress.best is not None:
        parts.append(f"best macro F1 {progress.best:.4f}")
    if progress.baseline is not None:
        parts.append(f"trial 0: {progress.baseline:.4f}")
    return ", ".join(parts + left)


def _within_budget(progress: "SweepProgress", left_s: float | None) -> float | None:
    """Seconds left of the phase; of a search no more than trials may still begin in."""
    if left_s is None or progress.budget_left_s is None or progress.stage != "search":
        return left_s
    return min(left_s, progress.budget_left_s)


class _LinePrinter:
    """Prints a line when something has ended, but not more often than every few seconds."""

    def __init__(self) -> None:
        self._last_line = 0.0
        self._last: tuple[str, int] = ("", -1)
        self._pace = TimeLeft()

    def show(self, progress: "SweepProgress") -> None:
        done, total = counts(progress)
        now, here = time.monotonic(), (progress.stage, done)
        left = _within_budget(progress, self._pace.seconds(progress.stage, done, total, now=now))
        if here == self._last or (now - self._last_line < _LINE_EVERY_S and done < total):
            return
        self._last_line, self._last = now, here
        told = describe(progress, left_s=left)
        print(f"{stage_in_words(progress)}: {done}/{total}: {told}", file=sys.stderr, flush=True)
