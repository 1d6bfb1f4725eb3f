"""What `b3dist runs status` shows a person of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDE = 200
_STATES = {"pruned": "stopped"}


def show_sweep(console: Console, found: Mapping[str, Any]) -> None:
    """Where it stands, what is best so far, the verdict, and a line per trial."""
    widen(console)
    console.print(f"sweep {found['run_id']}: {found['state']}{_phase(found['phase'])}, {describe_trials(found)}")
    best, start = found["best"], found["start"]
    if start is not None and start["macro_f1"] is not None:
        beaten = f", trial 0 {start['macro_f1']:.4f}" if best["trial"] != start["trial"] else " (trial 0)"
        told = "" if found["verdict"] else " so far"
        console.print(f"best macro F1 of the search{told}: trial {best['trial']} {best['macro_f1']:.4f}{beaten}")
    if found["verdict"]:
        console.print(found["verdict"]["reason"], markup=False, soft_wrap=True)
    if found["entries"]:
        console.print(_table(found["entries"]))
    for entry in found["entries"]:
        if entry["state"] == "failed":
            console.print(f"trial {entry['trial']} failed: {entry['error']}", markup=False, soft_wrap=True)


def widen(console: Console) -> None:
    """A line per row in a file or a pipe, which have no width to keep to."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)


def describe_trials(found: Mapping[str, Any]) -> str:
    """`8 trials: 2 complete, 6 stopped early`, of a line of `runs list`."""
    counts = [(found["trained"], "complete"), (found["skipped"], "stopped early"), (found["failed"], "failed")]
    told = ", ".join(f"{count} {word}" for count, word in counts if count) or "none has ended"
    return f"{found['trials']} trials: {told}" + (f", {found['stopped']}" if found["stopped"] else "")


def _phase(phase: Mapping[str, Any] | None) -> str:
    if phase is None:
        return ""
    done = f"{phase['done']}" if phase["total"] is None else f"{phase['done']}/{phase['total']}"
    return f", {phase['name']} (phase {phase['number']} of {phase['of']}) {done}"


def _table(entries: Sequence[Mapping[str, Any]]) -> Table:
    settings = list(dict.fromkeys(name for entry in entries for name in entry["params"]))
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("trial", "", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("macro\nF1", "error\nratio", "epochs", *_short(settings)):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(
            str(entry["trial"]),
            entry["mark"] or "",
            _STATES.get(entry["state"], entry["state"]),
            *(_number(entry[name], "{:.4f}") for name in ("macro_f1", "error_ratio")),
            _number(entry["epochs"], "{}"),
            *(_number(entry["params"].get(name), "{:.3g}") for name in settings),
        )
    return table


def _short(settings: Sequence[str]) -> list[str]:
    """Settings without their section, where that leaves them apart; words may stand below each other."""
    names = [name.rpartition(".")[2] for name in settings]
    return [
        name.replace("_", "\n") if len(set(names)) == len(names) else whole
        for name, whole in zip(names, settings, strict=True)
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
