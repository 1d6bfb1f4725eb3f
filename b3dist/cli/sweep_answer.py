"""What `b3dist sweep` answers: the verdict, what it rests on, and what to use."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from b3dist.cli.output import Answer
from b3dist.cli.sweep_status import widen

if TYPE_CHECKING:
    from b3dist.distributed.sweep.folder import SweepFolder

_ACTIONS = ("buy", "sell", "hold")


def sweep_answer(folder: "SweepFolder", summary: dict[str, Any]) -> Answer:
    """The JSON object, and how to show it to a person."""
    totals, best, verdict = summary["totals"], summary["best"], summary["verdict"]
    payload = {
        "sweep_id": summary["run_id"],
        "best": {name: best[name] for name in ("params", "value", "adopted")},
        "trials": totals["trials"],
        "stopped": summary["stopped"],
        "path": str(folder.run.path),
        "verdict": verdict["reason"],
        "conclusion": verdict.get("conclusion"),  # null for a sweep of an older version, like what follows
        "held_out": verdict.get("standings", []),
        "warnings": _warnings(summary),
        "best_recipe": str(folder.best),
        "pareto_front": front_of(folder, summary),
        "engine": summary["engine"],
        "excluded": dict(folder.plan.excluded),
        **{name: totals[name] for name in ("complete", "pruned", "failed", "wall_seconds")},
    }
    if summary["asset_verdict"]:
        payload["asset_verdict"] = summary["asset_verdict"]["reason"]
    return Answer(payload=payload, show=_shown(folder, summary))


def front_of(folder: "SweepFolder", summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials of the Pareto front, best macro F1 first, with both scores of the search and their configurations."""
    trials = {one["number"]: one for one in summary["trials"]}
    return [
        {
            "trial": number,
            "macro_f1": trials[number]["values"][0],
            "error_ratio": trials[number]["values"][1],
            "params": trials[number]["params"],
            "recipe": str(recipe) if (recipe := folder.recipe_of(number)).is_file() else None,
        }
        for number in summary["pareto_front"]
    ]


def _warnings(summary: dict[str, Any]) -> list[str]:
    return [*summary.get("warnings", ()), *summary["verdict"].get("warnings", ())]


def _shown(folder: "SweepFolder", summary: dict[str, Any]) -> Callable[[Console], None]:
    def show(console: Console) -> None:
        widen(console)
        totals = summary["totals"]
        console.print(
            f"sweep {summary['run_id']}: {totals['trials']} trials ({totals['complete']} complete, "
            f"{totals['pruned']} stopped early, {totals['failed']} failed), {totals['wall_seconds']:.0f} s"
        )
        if summary["stopped"]:
            console.print(f"{summary['stopped']}; the others: {folder.run.how_to_resume()}", soft_wrap=True)
        start = folder.plan.space.start(folder.config)
        table = Table("setting", "from", "best", box=None)
        for name, value in summary["best"]["params"].items():
            table.add_row(name, f"{start[name]:g}", f"{value:g}")
        console.print(table)
        if standings := summary["verdict"].get("standings"):
            console.print(standings_table(standings))
        console.print(summary["verdict"]["reason"], soft_wrap=True)
        if summary["asset_verdict"]:
            console.print(f"per asset: {summary['asset_verdict']['reason']}", soft_wrap=True)
        for warning in _warnings(summary):
            console.print(f"warning: {warning}", soft_wrap=True)
        if front := front_of(folder, summary):
            console.print(_front_table(front))
        console.print(f"use it: b3dist fleet --recipe-file {folder.best}", soft_wrap=True)
        trials = folder.recipe_of(0).parent
        if others := sorted(path.stem for path in trials.glob("*.yaml")):
            which = f"NNN one of {', '.join(others)}"
            console.print(f"another trial's: b3dist fleet --recipe-file {trials}/NNN.yaml, {which}", soft_wrap=True)

    return show


def _front_table(front: Sequence[dict[str, Any]]) -> Table:
    settings = list(front[0]["params"])
    table = Table(
        "Pareto front", "macro F1", "return error ratio", *(one.rpartition(".")[2] for one in settings), box=None
    )
    for one in front:
        values = (f"{one['params'][name]:.4g}" for name in settings)
        table.add_row(f"trial {one['trial']}", f"{one['macro_f1']:.4f}", f"{one['error_ratio']:.4f}", *values)
    return table


def standings_table(standings: Sequence[dict[str, Any]]) -> Table:
    """Winner, trial 0 and what costs nothing on held-out assets' test parts; the truth in the last line.

    Args:
        standings: as in summary.json.
    """
    table = Table("held out", "macro F1", "return error ratio", *(f"{name} called" for name in _ACTIONS), box=None)
    for one in standings:
        called = (f"{one['called'][name]:,.0f}" for name in _ACTIONS)
        table.add_row(one["name"], f"{one['macro_f1']:.4f}", f"{one['error_ratio']:.4f}", *called)
    # Trial 0's: the winner's own labels differ only where what is searched changes them, which a warning says.
    table.add_row("true", "", "", *(f"{standings[1]['true'][name]:,.0f}" for name in _ACTIONS))
    return table
