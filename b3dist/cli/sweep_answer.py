"""What `b3dist sweep` answers: the verdict, what it rests on, and what to use."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from b3dist.cli.output import Answer

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
        "path": str(folder.run.path),
        "verdict": verdict["reason"],
        "conclusion": verdict.get("conclusion"),  # null for a sweep of an older version, like what follows
        "held_out": verdict.get("standings", []),
        "warnings": _warnings(summary),
        "best_recipe": str(folder.best),
        "engine": summary["engine"],
        "excluded": dict(folder.plan.excluded),
        **{name: totals[name] for name in ("complete", "pruned", "failed", "wall_seconds")},
    }
    if summary["asset_verdict"]:
        payload["asset_verdict"] = summary["asset_verdict"]["reason"]
    return Answer(payload=payload, show=_shown(folder, summary))


def _warnings(summary: dict[str, Any]) -> list[str]:
    return [*summary.get("warnings", ()), *summary["verdict"].get("warnings", ())]


def _shown(folder: "SweepFolder", summary: dict[str, Any]) -> Callable[[Console], None]:
    def show(console: Console) -> None:
        totals = summary["totals"]
        console.print(
            f"sweep {summary['run_id']}: {totals['trials']} trials ({totals['complete']} complete, "
            f"{totals['pruned']} stopped early, {totals['failed']} failed), {totals['wall_seconds']:.0f} s"
        )
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
        console.print(f"use it: b3dist fleet --recipe-file {folder.best}", soft_wrap=True)

    return show


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
