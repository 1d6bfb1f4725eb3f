"""`b3dist report`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from b3dist.cli.options import DEFAULT_RUNS, RunsOption
from b3dist.cli.output import Answer, Debug, Json, answers
from b3dist.cli.runs import newest_run


@answers
def report(
    run_id: Annotated[
        str | None, typer.Argument(help="The run, as `b3dist runs list` names it (default: the newest).")
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    out: Annotated[Path | None, typer.Option("--out", help="The file (default: report.html in the run).")] = None,
    releases: Annotated[
        Path | None, typer.Option("--releases", help="Folder of all releases (default: releases, beside the runs).")
    ] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Write a run's report: one HTML file with tables and plots, to be opened without network."""
    from b3dist.report import write_report

    started = time.perf_counter()
    run_id = newest_run(runs) if run_id is None else run_id
    problems: list[str] = []
    path = write_report(runs, run_id, out=out, releases=releases, on_problem=problems.append).resolve()
    payload = {
        "path": str(path),
        "bytes": path.stat().st_size,
        "seconds": round(time.perf_counter() - started, 3),
        "problems": problems,
    }

    def show(console: Console) -> None:
        for problem in problems:
            console.print(f"warning: {problem}", markup=False, soft_wrap=True)
        console.print(f"report: {path}", markup=False, soft_wrap=True)

    return Answer(payload=payload, show=show)
