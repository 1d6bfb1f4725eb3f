"""Which charts a sweep's page has, as Plotly figures in JSON."""

import json
import warnings
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import optuna
import plotly.graph_objects as go

from b3dist.report.sweep_figures import (
    Landmarks,
    curves,
    history,
    importances,
    parallel_coordinates,
    pareto_front,
)
from b3dist.tuning.journal import TrialRecord
from b3dist.tuning.space import SearchSpace

MOST_IN_HALF_WIDTH: Final = 5
"""Axes of parallel coordinates that half the page has room for."""
_LEAST_FOR_IMPORTANCE = 5

_LAYOUT: Final = {
    "template": "plotly_white",
    "height": 340,
    "margin": {"l": 64, "r": 36, "t": 16, "b": 48},
    "showlegend": False,
    "hovermode": "closest",
    "font": {"color": "#1b2530", "size": 12},
}


class Chart(NamedTuple):
    """One figure of the page."""

    title: str
    note: str
    figure: dict[str, Any] | None
    """Plotly's data and layout; None where there is too little to draw."""
    wide: bool = False
    """Whether it takes the page's whole width."""


def sweep_charts(
    study: optuna.Study,
    records: Sequence[TrialRecord],
    space: SearchSpace,
    *,
    two_objectives: bool,
    marks: Landmarks,
) -> list[Chart]:
    """Every chart of the page."""
    colours = "orange: trial 0" + ("" if marks.best is None else f"; green: trial {marks.best}")
    wide = len(space.names) > MOST_IN_HALF_WIDTH
    charts = [
        Chart(
            "History",
            f"Macro F1 of each trial; hollow: stopped early; {colours}; line: the best complete one so far.",
            _plain(history(records, marks)),
        ),
        Chart(
            "Parameter importance",
            "Share of the variation of macro F1 among complete trials that each setting explains (fANOVA); with few "
            "trials it says little.",
            _importances(study, records),
        ),
        Chart(
            "Parallel coordinates",
            f"One line per trial, darker is better; dotted: stopped early; {colours}.",
            _plain(parallel_coordinates(records, space, marks)),
            wide,
        ),
    ]
    if two_objectives:
        front = [trial.number for trial in study.best_trials]
        note = (
            "Right and down is better. The joined trials cannot be beaten in one objective without losing in the "
            f"other; {colours}; cross: what costs nothing."
        )
        charts.append(Chart("Pareto front", note, _plain(pareto_front(records, front, marks)), wide))
    else:
        note = f"Of the weights kept so far; where a line ends early, the trial was stopped; {colours}."
        charts.append(Chart("Macro F1 by epoch", note, _plain(curves(records, marks)), wide))
    return charts


def without_gaps(charts: Sequence[Chart]) -> list[Chart]:
    """The same, the last of an odd number of half-width ones wide."""
    halves = [place for place, chart in enumerate(charts) if not chart.wide]
    alone = halves[-1] if len(halves) % 2 else None
    return [chart._replace(wide=True) if place == alone else chart for place, chart in enumerate(charts)]


def _importances(study: optuna.Study, records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    if sum(record.state == "complete" for record in records) < _LEAST_FOR_IMPORTANCE:
        return None
    # Not Optuna's default, PED-ANOVA, which asks what makes a target low. Seeded, or each page would differ.
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(
                study,
                evaluator=evaluator,
                target=lambda trial: float(trial.values[0]),
            )
    except (ValueError, RuntimeError):  # all trials alike
        return None
    return _plain(importances(shares))


def _plain(figure: go.Figure) -> dict[str, Any] | None:
    """A figure as plain data; None where it shows no trial."""
    if not any(len(trace.x) for trace in figure.data):
        return None
    figure.update_layout(**_LAYOUT).update_xaxes(automargin=True).update_yaxes(automargin=True)
    content: dict[str, Any] = json.loads(figure.to_json())
    return content
