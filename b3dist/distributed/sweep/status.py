"""A sweep seen from outside, for `runs list` and `runs status`; nothing is written, whoever drives it meanwhile."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from b3dist.distributed.ledger import Event, read_ledger
from b3dist.distributed.sweep.folder import JOURNAL, SweepPlan, plan_of
from b3dist.distributed.sweep.summary import read_sweep_summary
from b3dist.errors import RunError
from b3dist.run_folder import RunFolder, is_driven

if TYPE_CHECKING:
    from b3dist.tuning.journal import TrialRecord


def trial_states(path: Path) -> dict[int, str]:
    """What became of each trial, by number; those that a killed driver left are `abandoned`.

    Raises:
        RunError: the ledger is damaged.
    """
    states: dict[int, str] = {}
    ledger = path / "ledger.jsonl"
    for event in read_ledger(ledger):
        if event["event"] == "opened":  # a new driver begins again what the former one left running
            states = {number: "abandoned" if state == "running" else state for number, state in states.items()}
        elif event["event"] == "trial":
            number, state = event.get("number"), event.get("state")
            if not (isinstance(number, int) and isinstance(state, str)):
                raise RunError(f"{ledger} is damaged: trial {number!r} is {state!r}", hint="start a new sweep")
            states[number] = state
    return states


SEARCH_STOPPED: Final = "search-stopped"
"""The ledger's event for a search whose time was up before all trials had begun."""


class SweepCounts(NamedTuple):
    """A sweep in a line."""

    by_state: Counter[str]
    """Trials; under `planned` those asked for."""
    finished: bool
    """Whether it has come to its verdict."""
    verdict: str | None
    adopted: int | None
    """The trial in best.yaml, if it is another than the one started from."""
    conclusion: str | None
    """The verdict in a few words; sweeps of before have none."""
    stopped: str | None
    """Why the search ended before its trials, if it did."""


def sweep_counts(run: RunFolder) -> SweepCounts:
    """Trials by state, and the verdict if the sweep has come to one.

    Raises:
        RunError: the folder is damaged.
    """
    counts = Counter(trial_states(run.path).values())
    plan = plan_of(run)
    counts["planned"] = plan.trials
    summary = read_sweep_summary(run, plan) or {}
    best = summary.get("best") or {}
    return SweepCounts(
        by_state=counts,
        finished=summary.get("state") == "finished",
        verdict=summary["verdict"]["reason"] if summary.get("verdict") else None,
        adopted=best.get("trial") if best.get("adopted") else None,
        conclusion=(summary.get("verdict") or {}).get("conclusion"),
        stopped=summary.get("stopped") if summary.get("state") == "finished" else None,
    )


def sweep_status(run: RunFolder) -> dict[str, Any]:
    """How far a sweep is, what is best so far, its verdict, and every trial; nothing is written.

    `phase` is None once the sweep has ended, `best` the complete trial with the highest macro F1 of the search,
    `start` trial 0, `verdict` what summary.json says. An entry's `mark` is winner, start, finalist, front (two
    objectives) or best.

    Raises:
        RunError: the folder is damaged.
    """
    plan, alive = plan_of(run), is_driven(run.path)
    summary = read_sweep_summary(run, plan) or {}
    if summary.get("state") == "finished" and not alive:
        trials, front, phase = summary["trials"], summary["pareto_front"], None
    else:
        trials, front, phase = _look_into_journal(run, plan)
    entries = [_entry(trial, alive=alive) for trial in trials if trial["state"] != "waiting"]
    scored = [entry for entry in entries if entry["state"] == "complete" and entry["macro_f1"] is not None]
    best = max(scored, key=lambda entry: (entry["macro_f1"], -entry["trial"]), default=None)
    start = next((_entry(one, alive=alive)["trial"] for one in reversed(trials) if one["baseline"]), None)
    finalists = {one["number"] for one in summary.get("finalists", ())}
    adopted = (summary.get("best") or {}).get("adopted")
    marks = {
        **({best["trial"]: "best"} if best and not plan.two_objectives else {}),
        **dict.fromkeys(front, "front"),
        **dict.fromkeys(finalists, "finalist"),
        **({start: "start"} if start is not None else {}),
        **({summary["best"]["trial"]: "winner"} if adopted else {}),
    }
    return {
        # Of the same moment as the entries: the ledger of a running sweep is a little behind its journal.
        "trained": len(scored),
        "skipped": sum(entry["state"] == "pruned" for entry in entries),
        "failed": sum(entry["state"] == "failed" for entry in entries),
        "phase": phase,
        "best": _in_short(best),
        "start": _in_short(next((entry for entry in entries if entry["trial"] == start), None)),
        "verdict": summary.get("verdict"),
        "entries": [{**entry, "mark": marks.get(entry["trial"])} for entry in entries],
    }


def _look_into_journal(run: RunFolder, plan: SweepPlan) -> tuple[list[dict[str, Any]], list[int], dict[str, Any]]:
    """Trials as summary.json will describe them, those on the Pareto front, and the phase."""
    # Optuna and torch take seconds to import: only while there is no summary to read instead.
    from b3dist.distributed.sweep.outcome import describe_trial
    from b3dist.tuning.finalists import pareto_front
    from b3dist.tuning.journal import read_trials

    journal = run.path / JOURNAL
    records = read_trials(journal) if journal.is_file() else []
    trials = [describe_trial(record) for record in records]
    for trial, record in zip(trials, records, strict=True):
        if record.state == "running":
            trial["epochs"] = max(record.curve, default=None)
    front = [record.number for record in pareto_front(records)] if plan.two_objectives else []
    return trials, front, _phase(plan, records, read_ledger(run.ledger))


def _phase(plan: SweepPlan, records: "Sequence[TrialRecord]", events: Sequence[Event]) -> dict[str, Any]:
    """Which phase, and what is done of it: trials of the search, trainings of what follows; None where not known."""
    from b3dist.tuning.finalists import baseline_of, choose_finalists

    settled = sum(one.state in ("complete", "pruned", "failed") and not one.was_abandoned for one in records)
    if settled < plan.trials and not _search_stopped(events):
        return _described(plan, "search", settled, plan.trials)
    baseline = baseline_of(records)
    chosen = choose_finalists(records, most=plan.finalists, two_objectives=plan.two_objectives) if baseline else []
    different = {json.dumps(one.params, sort_keys=True) for one in (baseline, *chosen) if one}
    # A sweep that was given more trials has trainings of former finalists too, and of a former winner.
    done = [event for event in events if event["event"] == "evaluated" and event["params"] in different]
    counts = Counter(event["stage"] for event in done)
    trainings = len(different) * plan.seeds * len(plan.cohort)
    if counts["finalists"] < trainings:
        return _described(plan, "finalists", counts["finalists"], trainings)
    if events and events[-1].get("stage") == "per-asset":
        return _described(plan, "per-asset", sum(event.get("stage") == "per-asset" for event in events), None)
    start = json.dumps(baseline.params, sort_keys=True) if baseline else ""
    own = [event["params"] for event in done if event["stage"] == "held-out"]
    winner = next((params for params in reversed(own) if params != start), None)
    judged = sum(params in (start, winner) for params in own)
    return _described(plan, "held-out", judged, 2 * plan.seeds * len(plan.held_out))


def _search_stopped(events: Sequence[Event]) -> bool:
    """Whether the newest driver's search was stopped; one before it may have stopped a search that now goes on."""
    last = next((event for event in reversed(events) if event["event"] in ("opened", SEARCH_STOPPED)), None)
    return last is not None and last["event"] == SEARCH_STOPPED


def _described(plan: SweepPlan, name: str, done: int, total: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "number": plan.phases.index(name) + 1,
        "of": len(plan.phases),
        "done": done,
        "total": total,
    }


def _entry(trial: Mapping[str, Any], *, alive: bool) -> dict[str, Any]:
    """A trial of summary.json as `runs status` shows it; left running by a driver that is gone: abandoned."""
    left = trial["abandoned"] or (trial["state"] == "running" and not alive)
    return {
        "trial": trial["number"],
        "state": "abandoned" if left else trial["state"],
        "seconds": trial["seconds"],
        "epochs": trial["epochs"],
        "macro_f1": (trial["values"] or [None])[0],
        "error_ratio": trial["error_ratio"],
        "params": trial["params"],
        "error": trial["error"],
    }


def _in_short(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    names = ("trial", "macro_f1", "error_ratio", "params")
    return None if entry is None else {name: entry[name] for name in names}
