"""A sweep as one HTML file: what was found, whether it is better, and every trial."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plotly.offline import get_plotlyjs

from b3dist import __version__
from b3dist.distributed.run_list import run_status
from b3dist.distributed.sweep.folder import KIND, SweepFolder
from b3dist.distributed.sweep.summary import read_sweep_summary
from b3dist.errors import RunError
from b3dist.report.html import as_json, csp_hash, environment, read_template
from b3dist.run_folder import is_driven, read_run_config

if TYPE_CHECKING:
    from b3dist.report.sweep_figures import Landmarks
    from b3dist.tuning.journal import TrialRecord

_HEADINGS = {
    "better": "A better configuration",
    "better than trial 0 only": "Better than trial 0, but not than what costs nothing",
    "keep the defaults": "Keep the defaults",
}
_SOURCES = {"start": "the start", "tpe": "TPE", "surface": "quadratic surface"}


def is_sweep(path: Path) -> bool:
    """Whether a run's folder is a sweep's; a damaged one is not."""
    try:
        config = read_run_config(path)
    except RunError:
        return False
    return config is not None and config["kind"] == KIND


def render_sweep(path: Path) -> str:
    """The page's HTML; a sweep that is running or was stopped is shown as far as it got.

    Raises:
        RunError: the sweep's folder is damaged, or the sweep has not begun.
    """
    from b3dist.report.sweep_charts import sweep_charts, without_gaps
    from b3dist.tuning.journal import load_study, read_trials

    sweep = SweepFolder.open(path.parent, path.name)
    summary = read_sweep_summary(sweep.run, sweep.plan) or {}
    running = is_driven(path)
    records = read_trials(sweep.journal)
    status = run_status(path.parent, path.name)
    charts = sweep_charts(
        load_study(sweep.journal),
        records,
        sweep.plan.space,
        two_objectives=sweep.plan.two_objectives,
        marks=_landmarks(sweep, status, records),
    )
    drawn = without_gaps([chart for chart in charts if chart.figure is not None])
    scripts = [get_plotlyjs(), read_template("sweep.js")]
    return (
        environment()
        .get_template("sweep.html.j2")
        .render(
            sweep_id=path.name,
            state="running" if running else summary.get("state", "interrupted"),
            settings=sweep.run.settings,
            plan=sweep.plan,
            start=sweep.plan.space.start(sweep.config),
            summary={} if running else summary,
            heading=_heading(summary),
            how_to_resume=sweep.run.how_to_resume(),
            phase=status["phase"],
            trials=records,
            states={entry["trial"]: entry["state"] for entry in status["entries"]},
            marks={entry["trial"]: entry["mark"] for entry in status["entries"] if entry["mark"]},
            tiles=_tiles(status["entries"]),
            sources=_SOURCES,
            charts=drawn,
            undrawn=[chart.title for chart in charts if chart.figure is None],
            figures=as_json({"figures": [chart.figure for chart in drawn]}),
            created_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=__version__,
            style=read_template("page.css"),
            scripts=scripts,
            script_hashes=[csp_hash(script) for script in scripts],
        )
    )


def _landmarks(sweep: SweepFolder, status: Mapping[str, Any], records: "Sequence[TrialRecord]") -> "Landmarks":
    """What the charts set off: the winner, or the best trial so far, and what costs nothing."""
    from b3dist.distributed.sweep.cautions import describe_cohort
    from b3dist.report.sweep_figures import Landmarks

    winner = next((entry["trial"] for entry in status["entries"] if entry["mark"] == "winner"), None)
    if winner is None and status["best"] is not None and not sweep.plan.two_objectives:
        winner = status["best"]["trial"]
    cohort = describe_cohort(records)
    if cohort is None:
        return Landmarks(best=winner)
    return Landmarks(
        best=winner, constant_action=cohort["constant_action"], constant_macro_f1=cohort["constant_macro_f1"]
    )


def _tiles(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Trials by state as of now, whatever an earlier driver has summed up, and their seconds."""
    return {
        **{
            state: sum(entry["state"] == state for entry in entries)
            for state in ("complete", "pruned", "failed", "running", "abandoned")
        },
        "seconds": sum(entry["seconds"] or 0.0 for entry in entries),
    }


def _heading(summary: dict[str, Any]) -> str:
    """The verdict in a few words; sweeps from before the comparison with what costs nothing claim no more than it."""
    verdict = summary.get("verdict") or {}
    if "conclusion" in verdict:
        return _HEADINGS.get(verdict["conclusion"], str(verdict["conclusion"]))
    return "Better than trial 0" if verdict.get("adopted") else _HEADINGS["keep the defaults"]
