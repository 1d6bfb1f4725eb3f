"""`b3dist score`: what a release says of one day, or of every session of years, in one Parquet file."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from b3dist.cli.options import DEFAULT_LAKE, DEFAULT_RUNS, LakeOption, RunsOption, parse_tickers
from b3dist.cli.output import Answer, Debug, Json, answers
from b3dist.cli.release import ReleasesOption, open_store
from b3dist.cli.score_progress import score_progress
from b3dist.cli.score_request import (
    check_asked,
    check_out,
    describe_asked,
    nothing_to_score,
    parse_span,
)

ReleaseOption = Annotated[str, typer.Option("--release", help="A release, or champion or challenger.")]
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Last session seen (default: newest)."),
]
History = Annotated[
    str | None,
    typer.Option("--history", metavar="FROM:TO", help="Every session, e.g. of 2012-01-01:2018-12-31."),
]
TickersOption = Annotated[str | None, typer.Option("--tickers", help="Some assets only, e.g. PETR4,VALE3.")]
WhichOption = Annotated[
    Literal["served", "evaluated"],
    typer.Option("--weights", help="Of a refitted release: models meant for serving, or those its metrics are of."),
]
NoStale = Annotated[
    bool,
    typer.Option("--no-stale", help="Leave out assets that have not traded for too many sessions; not with --history."),
]


@answers
def score(
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write.")],
    lake: LakeOption = DEFAULT_LAKE,
    release: ReleaseOption = "champion",
    runs: RunsOption = DEFAULT_RUNS,
    releases: ReleasesOption = None,
    as_of: AsOf = None,
    history: History = None,
    tickers: TickersOption = None,
    which: WhichOption = "served",
    no_stale: NoStale = False,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Score one day or a whole history without a server, into one Parquet file."""
    import time

    from b3dist.data.lake import Lake
    from b3dist.scoring.bulk import remove_leftovers, score_day, score_span, write_scores

    span = parse_span(as_of, history, no_stale=no_stale)
    wanted = parse_tickers(tickers)
    check_out(out)
    started = time.perf_counter()
    opened, lake_opened = open_store(releases, runs).open(release), Lake(lake)
    day = as_of.date() if as_of is not None else None
    calendar = lake_opened.calendar()
    check_asked(calendar, day, span)
    remove_leftovers(out)
    total = len(wanted if wanted is not None else opened.assets)
    with score_progress(total) as report:
        if span is None:
            scored = score_day(opened, lake_opened, as_of=day, tickers=wanted, which=which, keep_stale=not no_stale)
        else:
            scored = score_span(opened, lake_opened, span, tickers=wanted, which=which)
        totals = write_scores(
            out,
            scored,
            on_progress=report,
            if_empty=lambda totals: nothing_to_score(calendar, day, span, totals.skipped),
        )
    facts = {
        "rows": totals.rows,
        "seconds": round(time.perf_counter() - started, 3),
        "path": str(out),
        "release_id": opened.release_id,
        "lake_manifest_hash": lake_opened.manifest_hash,
        **describe_asked(calendar, day, span),
    }
    payload = {**facts, **totals.describe()}
    return Answer(payload=payload, show=lambda console: show(console, payload))


def show(console: Console, payload: dict[str, Any]) -> None:
    """The answer for people."""
    from b3dist.scoring.scorer import STALE_AFTER

    if payload["history"]:
        console.print(f"{'history':10} {' to '.join(payload['history'])}", markup=False)
    else:
        console.print(f"{'as of':10} {payload['as_of']}", markup=False)
    for name in ("rows", "assets", "seconds", "release_id", "path"):
        value = payload[name]
        shown = f"{value:,}" if isinstance(value, int) else value
        console.print(f"{name.replace('_', ' '):10} {shown}", markup=False, soft_wrap=True)
    if payload["note"]:
        console.print(f"note: {payload['note']}", markup=False, soft_wrap=True)
    if payload["stale"]:
        console.print(
            f"{payload['stale']:,} of {payload['rows']:,} rows are stale: assets that have not traded for more than"
            f" {STALE_AFTER} sessions",
            markup=False,
            soft_wrap=True,
        )
    if payload["in_sample"]:
        console.print(
            f"{payload['in_sample']:,} of {payload['rows']:,} rows lie in the part their model was trained on:"
            " no evidence of skill",
            markup=False,
            soft_wrap=True,
        )
    _show_skipped(console, payload["skipped"])
    for reason, count in payload["left_out"].items():
        console.print(f"{count:,} sessions without a window: {reason}", markup=False)


def _show_skipped(console: Console, skipped: Sequence[dict[str, Any]], shown: int = 3) -> None:
    for entry in skipped[:shown]:
        console.print(f"skipped {entry['ticker']}: {entry['reason']}", markup=False, soft_wrap=True)
    if len(skipped) > shown:
        console.print(f"... and {len(skipped) - shown} more (--json lists all)", markup=False)
