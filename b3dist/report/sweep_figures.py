"""The figures of a sweep's page, drawn by Plotly from its trials.

Not Optuna's own: theirs leave out the best value so far where there are two objectives, name every trial in a legend,
count trials in fractions, and compile shaders at run time (parallel coordinates), which the page's policy forbids.
`optuna.visualization` draws them from the journal for whoever wants them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from b3dist.tuning.journal import TrialRecord
from b3dist.tuning.space import SearchSpace
from b3dist.tuning.study import OBJECTIVES

_F1, _RATIO = OBJECTIVES
_USUAL, _START, _BEST, _OTHER = "#0072b2", "#d55e00", "#009e73", "#8f9ba6"
"""Of trials, of trial 0, of the best, and of what is beside the point; colour-blind readers tell them apart."""
_MIDDLE = 0.5


class Landmarks(NamedTuple):
    """What every chart sets off."""

    best: int | None = None
    """The winner, or the best trial so far."""
    constant_action: str | None = None
    """The most frequent action of the windows that trials are judged on."""
    constant_macro_f1: float = 0.0
    """Of always predicting it: what costs nothing."""

    def colour(self, record: TrialRecord, usual: str = _USUAL) -> str:
        """Of a trial."""
        return _START if record.is_baseline else _BEST if record.number == self.best else usual

    def sets_off(self, record: TrialRecord) -> bool:
        """Whether a trial is named and drawn larger."""
        return record.is_baseline or record.number == self.best

    def label(self, record: TrialRecord) -> str:
        """Its name, or nothing."""
        return f"trial {record.number}" if self.sets_off(record) else ""


def history(records: Sequence[TrialRecord], marks: Landmarks) -> go.Figure:
    """Each trial's macro F1 in the order of trials, and the best complete one so far as steps."""
    judged = _judged(records)
    complete = [record for record in judged if record.state == "complete"]
    values = [_f1(record) for record in complete]
    figure = go.Figure()
    if complete:
        figure.add_scatter(
            x=[record.number for record in complete],
            y=np.maximum.accumulate(values).tolist(),
            mode="lines",
            line={"color": _USUAL, "width": 1.5, "shape": "hv"},
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=[record.number for record in judged],
        y=[_f1(record) for record in judged],
        mode="markers+text",
        marker={
            "size": [11 if marks.sets_off(record) else 7 for record in judged],
            "symbol": ["circle-open" if record.state == "pruned" else "circle" for record in judged],
            "color": [marks.colour(record) for record in judged],
        },
        text=[marks.label(record) for record in judged],
        textposition="top center",
        cliponaxis=False,
        **_hover(judged),
    )
    _add_constant(figure, marks, [record.number for record in judged])
    return _counted(figure, "trial", [record.number for record in judged]).update_yaxes(title=_F1)


def importances(shares: Mapping[str, float]) -> go.Figure:
    """The share of the variation of macro F1 that each setting explains, the largest on top."""
    ordered = sorted(shares.items(), key=lambda pair: pair[1])
    figure = go.Figure()
    figure.add_bar(
        x=[share for _, share in ordered],
        y=[name for name, _ in ordered],
        orientation="h",
        width=0.6,
        marker={"color": _USUAL},
        text=[f"{share:.2f}" for _, share in ordered],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.update_xaxes(title="share of the variation", rangemode="tozero")
    return figure.update_yaxes(ticklabelstandoff=6, showgrid=False)


def parallel_coordinates(records: Sequence[TrialRecord], space: SearchSpace, marks: Landmarks) -> go.Figure:
    """Every trial as a line over its settings' places in their ranges."""
    judged = _judged(records)
    values = [_f1(record) for record in judged]
    low, high = min(values, default=0.0), max(values, default=0.0)
    figure = go.Figure()
    for record in sorted(judged, key=lambda record: (marks.sets_off(record), _f1(record))):
        share = (_f1(record) - low) / (high - low) if high > low else 1.0
        figure.add_scatter(
            x=list(space.names),
            y=space.to_unit(record.params).tolist(),
            mode="lines",
            line={
                "color": marks.colour(record, _shade(share)),
                "width": 3 if marks.sets_off(record) else 1.5,
                "dash": "dot" if record.state == "pruned" else "solid",
            },
            **_hover([record] * len(space.names)),
        )
    if high > low:
        _add_scale(figure, space.names[0], low, high)
    ticks = [
        # Above its place in the middle, where trial 0's line usually runs.
        {"x": one.name, "y": place, "text": _tick(one.from_unit(place)), "xanchor": "left", "xshift": 5}
        | ({"yshift": 11} if place == _MIDDLE else {})
        for one in space.dimensions
        for place in (0.0, _MIDDLE, 1.0)
    ]
    boxed = {"showarrow": False, "bgcolor": "rgba(255,255,255,0.85)", "borderpad": 1, "font": {"size": 11}}
    figure.update_layout(annotations=[tick | boxed for tick in ticks])
    figure.update_xaxes(
        tickvals=list(space.names), ticktext=[name.replace(".", ".<br>") for name in space.names], gridcolor="#b9c2cb"
    )
    return figure.update_yaxes(visible=False, range=[-0.05, 1.05])


def pareto_front(records: Sequence[TrialRecord], front: Iterable[int], marks: Landmarks) -> go.Figure:
    """Complete trials by both objectives and what costs nothing; those on the front are numbered and joined."""
    numbers = set(front)
    complete = [record for record in _judged(records) if record.state == "complete"]
    best = sorted((record for record in complete if record.number in numbers), key=_f1)
    others = [record for record in complete if record.number not in numbers]
    figure = go.Figure()
    for group, look in (
        (
            others,
            {
                "mode": "markers+text",
                "marker": _marker(others, _OTHER, marks),
                "text": [str(record.number) if marks.sets_off(record) else "" for record in others],
                "textposition": "top center",
            },
        ),
        (
            best,
            {
                "mode": "lines+markers+text",
                "marker": _marker(best, _USUAL, marks),
                # Vertical first: what lies right of and above a step is reached, what lies below is not.
                "line": {"color": _USUAL, "width": 1, "shape": "vh"},
                "text": [str(record.number) for record in best],
                "textposition": "bottom right",
                "cliponaxis": False,
            },
        ),
    ):
        figure.add_scatter(
            x=[_f1(record) for record in group],
            y=[(record.values or (0.0, 0.0))[1] for record in group],
            **look,
            **_hover(group),
        )
    if marks.constant_action is not None:
        figure.add_scatter(
            x=[marks.constant_macro_f1],
            y=[1.0],
            mode="markers",
            marker={"symbol": "x", "size": 9, "color": _OTHER},
            hovertext=[f"always {marks.constant_action}, no change: {marks.constant_macro_f1:.4f}, 1.0000"],
            hoverinfo="text",
        )
    return figure.update_xaxes(title=_F1).update_yaxes(title=_RATIO)


def curves(records: Sequence[TrialRecord], marks: Landmarks) -> go.Figure:
    """Macro F1 of each trial by epoch."""
    drawn = sorted((record for record in records if record.curve), key=marks.sets_off)
    figure = go.Figure()
    for record in drawn:
        epochs = sorted(record.curve)
        figure.add_scatter(
            x=epochs,
            y=[record.curve[epoch] for epoch in epochs],
            mode="lines+markers+text",
            opacity=1.0 if marks.sets_off(record) else 0.6,
            line={"color": marks.colour(record), "width": 3 if marks.sets_off(record) else 1.2},
            marker={"size": 4},
            text=[""] * (len(epochs) - 1) + [marks.label(record)],
            textposition="top left",
            textfont={"color": marks.colour(record)},
            cliponaxis=False,
            hovertext=[f"trial {record.number}, epoch {epoch}: {record.curve[epoch]:.4f}" for epoch in epochs],
            hoverinfo="text",
        )
    epochs = [epoch for record in drawn for epoch in record.curve]
    _add_constant(figure, marks, epochs)
    return _counted(figure, "epoch", epochs).update_yaxes(title=_F1)


def _judged(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.values]


def _f1(record: TrialRecord) -> float:
    return record.values[0] if record.values else 0.0


def _marker(records: Sequence[TrialRecord], colour: str, marks: Landmarks) -> dict[str, Any]:
    return {
        "size": [11 if marks.sets_off(record) else 8 for record in records],
        "color": [marks.colour(record, colour) for record in records],
    }


def _add_constant(figure: go.Figure, marks: Landmarks, numbers: Sequence[int]) -> None:
    """A line at what always predicting the most frequent action scores."""
    if marks.constant_action is None or not numbers:
        return
    figure.add_scatter(
        x=[min(numbers) - 0.5, max(numbers) + 0.5],
        y=[marks.constant_macro_f1] * 2,
        mode="lines+text",
        line={"color": _OTHER, "width": 1.2, "dash": "dash"},
        text=[f"always {marks.constant_action}: {marks.constant_macro_f1:.3f}", ""],
        textposition="top right",
        textfont={"color": _OTHER},
        hoverinfo="skip",
    )


def _hover(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """A line for the trial and each setting."""
    texts = [
        "<br>".join(
            [
                f"trial {record.number}: {', '.join(f'{value:.4f}' for value in record.values or ())}",
                *(f"{name}: {number:.4g}" for name, number in record.params.items()),
            ]
        )
        for record in records
    ]
    return {"hovertext": texts, "hoverinfo": "text"}


def _shade(share: float) -> str:
    """Dark is better, since the light end of the scale is hard to see on white."""
    return str(sample_colorscale("Viridis", [0.88 * (1 - share)])[0])


def _tick(value: float) -> str:
    """Three digits, and no powers of ten where there are few."""
    return f"{value:,.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"


def _add_scale(figure: go.Figure, name: str, low: float, high: float) -> None:
    """What the colours mean, hung on a point that is not drawn."""
    bar = {"title": {"text": _F1, "side": "right"}, "thickness": 10, "outlinewidth": 0, "tickformat": ".3~f"}
    scale = [[place, _shade(place)] for place in np.linspace(0, 1, 11).tolist()]
    marker = {"color": [low], "cmin": low, "cmax": high, "colorscale": scale, "showscale": True, "colorbar": bar}
    figure.add_scatter(x=[name], y=[None], mode="markers", marker=marker, hoverinfo="skip")


def _counted(figure: go.Figure, title: str, numbers: Sequence[int]) -> go.Figure:
    """Whole numbers along x: Plotly would mark fractions where there are few."""
    figure.update_xaxes(title=title)
    if numbers and max(numbers) - min(numbers) < 10:
        figure.update_xaxes(dtick=1, range=[min(numbers) - 0.5, max(numbers) + 0.5])
    return figure
