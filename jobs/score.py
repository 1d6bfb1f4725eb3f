"""Score a release's whole history, or one day, as a Ray job, into a folder of Parquet parts.

From the repository's root:

    export RAY_AUTH_MODE=token
    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
        python jobs/score.py --lake /shared/lake --runs /shared/runs --release champion \
        --history 2012-01-01:2018-12-31 --out /shared/scores --json

Lake, releases and --out must lie on storage that every node sees. Run again after an interruption: finished parts stay.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

# A job's script finds its own folder, not the one above, and the nodes need not have b3dist installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from b3dist.cli.options import DEFAULT_LAKE, DEFAULT_RUNS, LakeOption, RunsOption, parse_tickers
from b3dist.cli.output import Answer, Debug, Json, answers
from b3dist.cli.release import ReleasesOption, open_store
from b3dist.cli.score import AsOf, History, NoStale, ReleaseOption, TickersOption, WhichOption, show
from b3dist.cli.score_progress import score_progress
from b3dist.cli.score_request import check_asked, describe_asked, nothing_to_score, parse_span
from b3dist.data.lake import Lake
from b3dist.distributed.score import TICKERS_PER_PART, drive_scores, plan_scores
from b3dist.scoring.windows import Skipped


@answers
def score(
    out: Annotated[Path, typer.Option("--out", help="The folder to write parts into.")],
    lake: LakeOption = DEFAULT_LAKE,
    release: ReleaseOption = "champion",
    runs: RunsOption = DEFAULT_RUNS,
    releases: ReleasesOption = None,
    as_of: AsOf = None,
    history: History = None,
    tickers: TickersOption = None,
    which: WhichOption = "served",
    no_stale: NoStale = False,
    tickers_per_part: Annotated[
        int, typer.Option("--tickers-per-part", min=1, help="Work of a task.")
    ] = TICKERS_PER_PART,
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster (default: RAY_ADDRESS).")] = None,
    json_output: Json = False,  # noqa: ARG001  read by @answers
    debug: Debug = False,
) -> Answer:
    """Score on a Ray cluster; run it again to go on."""
    started = time.perf_counter()
    span, wanted = parse_span(as_of, history, no_stale=no_stale), parse_tickers(tickers)
    day = as_of.date() if as_of else None
    opened, lake_opened = open_store(releases, runs).open(release), Lake(lake)
    calendar = lake_opened.calendar()
    check_asked(calendar, day, span)
    plan = plan_scores(
        opened,
        lake_opened,
        span=span,
        as_of=day,
        tickers=wanted,
        which=which,
        keep_stale=not no_stale,
        tickers_per_part=tickers_per_part,
    )
    with score_progress(sum(map(len, plan.parts))) as report:
        manifest = drive_scores(plan, out, address=address, debug=debug, on_progress=report)
    if not manifest["rows"]:
        raise nothing_to_score(calendar, day, span, [Skipped(**entry) for entry in manifest["skipped"]])
    facts = ("rows", "release_id", "lake_manifest_hash", "assets", "stale", "in_sample", "skipped", "left_out")
    payload = {name: manifest[name] for name in facts}
    payload |= {"seconds": round(time.perf_counter() - started, 3), "path": str(out), "parts": len(plan.parts)}
    payload |= describe_asked(calendar, day, span)
    return Answer(payload=payload, show=lambda console: show(console, payload))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(score)
    app()
