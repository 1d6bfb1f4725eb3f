"""A sweep's charts, as Plotly figures in JSON: Optuna's own, from its journal, and lines where Optuna's need WebGL."""

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
import plotly.graph_objects as go

from b3dist.tuning.space import SearchSpace
from b3dist.tuning.study import TrialRecord

_F1, _RATIO = "macro F1", "return RMSE ÷ persistence"
_COLOURS = "Viridis"


class Chart(NamedTuple):
    """One figure of the page."""

    title: str
    note: str
    figure: dict[str, Any] | None
    """Plotly's data and layout; None where there is too little to draw."""


def sweep_charts(
    study: optuna.Study, records: Sequence[TrialRecord], space: SearchSpace, *, two_objectives: bool
) -> list[Chart]:
    """Every chart of the page."""
    from optuna import visualization

    num_complete = sum(record.state == "complete" for record in records)
    target: dict[str, Any] = {"target_name": _F1}
    if two_objectives:
        target["target"] = lambda trial: trial.values[0]
    charts = [
        Chart(
            "History",
            "Macro F1 of each complete trial, and the best so far.",
            _drawn(lambda: visualization.plot_optimization_history(study, **target)),
        ),
        Chart(
            "Parameter importance",
            "Share of the variation of macro F1 among complete trials that each setting explains (fANOVA); with few "
            "trials it says little.",
            _drawn(lambda: visualization.plot_param_importances(study, **target)) if num_complete >= 5 else None,
        ),
        Chart(
            "Parallel coordinates",
            "One line per trial, coloured by macro F1 (brighter is better); dotted: stopped early, black: trial 0.",
            _drawn(lambda: parallel_coordinates(records, space)),
        ),
    ]
    if two_objectives:
        charts.append(
            Chart(
                "Pareto front",
                "Right and down is better. What is on the front cannot be beaten in one objective without losing "
                "in the other.",
                _drawn(lambda: visualization.plot_pareto_front(study, target_names=[_F1, _RATIO])),
            )
        )
    else:
        charts.append(
            Chart(
                "Macro F1 by epoch",
                "Of the weights kept so far; where a line ends early, the trial was stopped.",
                _drawn(lambda: visualization.plot_intermediate_values(study)),
            )
        )
    return charts


def parallel_coordinates(records: Sequence[TrialRecord], space: SearchSpace) -> go.Figure:
    """Every trial as a line over its settings' places in their ranges.

    Plotly's own parallel coordinates compile shaders at run time, which the page's policy forbids.

    Raises:
        ValueError: no trial has a value.
    """
    judged = [(record, record.values[0]) for record in records if record.values]
    if not judged:
        raise ValueError("no trial has a value")
    values = np.array([value for _, value in judged])
    low, high = float(values.min()), float(values.max())
    figure = go.Figure()
    for record, value in sorted(judged, key=lambda pair: (pair[0].is_baseline, pair[1])):
        share = (value - low) / (high - low) if high > low else 0.5
        text = "<br>".join(f"{name}: {number:.4g}" for name, number in record.params.items())
        figure.add_scatter(
            x=list(space.names),
            y=space.to_unit(record.params).tolist(),
            mode="lines",
            line={
                "color": "#000" if record.is_baseline else _colour(share),
                "width": 3 if record.is_baseline else 1.5,
                "dash": "dot" if record.state == "pruned" else "solid",
            },
            hovertext=f"trial {record.number}: {value:.4f}<br>{text}",
            hoverinfo="text",
            showlegend=False,
        )
    ticks = [
        {"x": one.name, "y": place, "text": f"{one.from_unit(place):.3g}", "showarrow": False, "xshift": 22}
        for one in space.dimensions
        for place in (0.0, 0.5, 1.0)
    ]
    figure.update_layout(annotations=ticks, yaxis={"visible": False, "range": [-0.05, 1.05]})
    return figure


def _colour(share: float) -> str:
    from plotly.colors import sample_colorscale

    return str(sample_colorscale(_COLOURS, [share])[0])


def _drawn(draw: Callable[[], go.Figure]) -> dict[str, Any] | None:
    """A figure as plain data; None where Optuna says that there is too little to draw."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figure = draw()
    except (ValueError, RuntimeError):
        return None
    if not figure.data:
        return None
    figure.update_layout(title=None, template="plotly_white", margin={"l": 60, "r": 30, "t": 20, "b": 50}, height=380)
    content: dict[str, Any] = json.loads(figure.to_json())
    return content
