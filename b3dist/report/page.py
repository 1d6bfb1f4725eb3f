"""The run as one HTML file: everything inlined, nothing fetched, no script but the page's own."""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from b3dist import __version__
from b3dist.distributed.fleet.starts import Starts
from b3dist.distributed.pooled.folder import MODEL_FOLDER
from b3dist.errors import RunError, StorageError
from b3dist.report.asset_view import asset_view
from b3dist.report.html import as_json, csp_hash, environment, read_template
from b3dist.report.overview import SPLITS, Row, asset_row, compare, skill_gate
from b3dist.report.pooled_view import untrained_on, whole_model
from b3dist.report.release_cards import ReleaseCard, release_cards
from b3dist.report.run_record import RunRecord, read_asset, read_run
from b3dist.report.sweep_page import is_sweep, render_sweep
from b3dist.report.words import describe, settings
from b3dist.run_folder import releases_beside, resume_command


def write_report(
    runs: Path,
    run_id: str,
    *,
    out: Path | None = None,
    releases: Path | None = None,
    on_problem: Callable[[str], None] = lambda _line: None,
) -> Path:
    """Write the report of a run and return its path, RUNS/<run_id>/report.html unless `out` is given.

    The cards of the run's releases are shown too, from `releases` beside the runs unless another folder is given.
    `on_problem` is told what of the run is missing or damaged; the page says it too.

    Raises:
        RunError: no such run.
        StorageError: the file cannot be written.
    """
    run = read_run(runs, run_id)
    for problem in run.problems:
        on_problem(problem)
    target = out or run.path / "report.html"
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if is_sweep(run.path):
            page = render_sweep(run.path)
        else:
            page = render(run, release_cards(releases or releases_beside(runs), run_id), on_problem=on_problem)
        aside.write_text(page, encoding="utf-8")
        aside.replace(target)
    except OSError as error:
        raise StorageError(
            f"cannot write the report {target}: {error.strerror}", hint="choose another file with --out"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    return target


def render(
    run: RunRecord,
    releases: Sequence[ReleaseCard] = (),
    *,
    on_problem: Callable[[str], None] = lambda _line: None,
) -> str:
    """The page's HTML; `on_problem` is told what of an asset, or of where it started, is missing or damaged."""
    rows: list[Row] = []
    views: list[str] = []
    parts: list[Mapping[str, Any]] = []
    starts, no_starts = _starts(run)
    if no_starts is not None:
        on_problem(no_starts)
    start_of = {} if starts is None else {asset.ticker: asset.to_dict() for asset in starts.assets}
    for files in run.assets():
        for problem in files.missing:
            on_problem(f"{files.ticker}: {problem}")
        row = asset_row(files.ticker, files.metrics or {})
        rows.append({**row, "unseen": untrained_on(files.facts), "start": start_of.get(files.ticker)})
        views.append(as_json(asset_view(files)))
        parts += (files.facts or {}).get("splits", {}).values()
    model = run.path / MODEL_FOLDER
    is_pooled = run.config.get("kind") == "pooled"
    whole = whole_model(run.summary, read_asset(model, with_predictions=False) if model.is_dir() else None)
    scripts = [get_plotlyjs(), *(read_template(name) for name in ("charts.js", "page.js"))]
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            run=run,
            is_pooled=is_pooled,
            how_to_resume=resume_command(run.path, "pooled" if is_pooled else "fleet"),
            whole=whole,
            unseen=[row["ticker"] for row in rows if row["unseen"]],
            starts=starts,
            no_starts=no_starts,
            releases=releases,
            created_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=__version__,
            totals=run.summary.get("totals", {}),
            period=_period(parts),
            words=describe(run.config.get("config")),
            settings=settings(run.config.get("config")),
            counts={
                state: sum(one.state == state for one in run.untrained) for state in ("skipped", "failed", "waiting")
            },
            scoreboard={split: compare(rows, split) for split in SPLITS},
            gates={split: skill_gate(rows, split) for split in SPLITS},
            overview=as_json({"rows": rows, "whole": whole and {"history": whole.history, "kept": whole.kept_epoch}}),
            views=views,
            style=read_template("page.css"),
            scripts=scripts,
            script_hashes=[csp_hash(script) for script in scripts],
        )
    )


def _starts(run: RunRecord) -> tuple[Starts | None, str | None]:
    """What a warm-started run started from, or why that cannot be told."""
    try:
        return Starts.of_run(run.path), None
    except RunError as error:
        return None, error.message


def _period(parts: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """First and last session of any window's last row in the fleet."""
    dated = [part for part in parts if part.get("first") and part.get("last")]
    return (min(part["first"] for part in dated), max(part["last"] for part in dated)) if dated else None
