"""A sweep seen from outside, for `runs list` and `runs status`, without Optuna, which takes a second to import."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from b3dist.distributed.ledger import read_ledger
from b3dist.distributed.sweep.folder import plan_of
from b3dist.run_folder import RunFolder, is_driven


def trial_states(path: Path) -> dict[int, str]:
    """What became of each trial, by number; those that a killed driver left are `abandoned`.

    Raises:
        RunError: the ledger is damaged.
    """
    states: dict[int, str] = {}
    for event in read_ledger(path / "ledger.jsonl"):
        if event["event"] == "opened":  # a new driver begins again what the former one left running
            states = {number: "abandoned" if state == "running" else state for number, state in states.items()}
        elif event["event"] == "trial":
            states[event["number"]] = event["state"]
    return states


def sweep_counts(run: RunFolder) -> tuple[Counter[str], bool]:
    """Trials by state, and whether the sweep has come to its verdict.

    Raises:
        RunError: the folder is damaged.
    """
    counts = Counter(trial_states(run.path).values())
    counts["planned"] = plan_of(run).trials
    try:
        summary: dict[str, Any] = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return counts, False
    return counts, summary.get("state") == "finished"


def sweep_entries(path: Path) -> list[dict[str, Any]]:
    """One entry per trial: what summary.json says of it, or as far as the ledger tells."""
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        known = {entry["number"]: entry for entry in summary["trials"]}
    except (OSError, ValueError, KeyError):
        known = {}
    entries = []
    alive = is_driven(path)
    for number, last in sorted(trial_states(path).items()):
        state = "abandoned" if last == "running" and not alive else last
        told = known.get(number, {})
        values = told.get("values") or [None]
        entries.append(
            {
                "trial": number,
                "state": state,
                "seconds": told.get("seconds"),
                "epochs": told.get("epochs"),
                "macro_f1": values[0],
                "error_ratio": told.get("error_ratio"),
                "params": told.get("params"),
                "error": told.get("error"),
            }
        )
    return entries
