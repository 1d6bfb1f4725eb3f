"""A sweep seen from outside: while it runs, after its driver has gone, and at its end; nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from b3dist.distributed.ledger import Ledger
from b3dist.distributed.run_list import list_runs, run_status
from b3dist.distributed.sweep.status import SEARCH_STOPPED
from b3dist.tuning.journal import TrialRecord, read_trials
from tests.distributed.runs import contents
from tests.distributed.sweeps import begun, concluded, lengthened, searched


def marks(status: dict[str, Any]) -> dict[int, str | None]:
    """The mark of each trial."""
    return {entry["trial"]: entry["mark"] for entry in status["entries"]}


def test_a_running_sweep_shows_what_is_best_so_far(small_lake: Path, tmp_path: Path) -> None:
    """Scores and parameters of ended trials, epochs of running ones, the phase; the folder is left as it was."""
    sweep = begun(small_lake, tmp_path)
    with sweep.run.driven():
        before = contents(sweep.run.path)
        status = run_status(tmp_path, sweep.run.run_id)
        assert contents(sweep.run.path) == before
    assert (status["state"], status["verdict"]) == ("running", None)
    assert status["phase"] == {"name": "search", "number": 1, "of": 3, "done": 2, "total": 9}
    ended, running = status["entries"][:2], status["entries"][2]
    assert [entry["macro_f1"] for entry in ended] == [entry["params"]["model.dropout"] for entry in ended]
    assert (running["state"], running["macro_f1"], running["epochs"]) == ("running", None, 1)
    assert set(running["params"]) == set(sweep.plan.space.names)
    best = max(ended, key=lambda entry: entry["macro_f1"])
    assert status["best"] == {name: best[name] for name in ("trial", "macro_f1", "error_ratio", "params")}
    assert status["start"]["trial"] == 0
    assert marks(status)[0] == "start"


def test_counts_are_those_of_the_trials_shown(small_lake: Path, tmp_path: Path) -> None:
    """A driver tells the journal first and the ledger a moment later."""
    sweep = begun(small_lake, tmp_path)
    sweep.run.ledger.write_text("")
    status = run_status(tmp_path, sweep.run.run_id)
    assert (status["trained"], status["skipped"], status["failed"]) == (2, 0, 0)


def test_without_its_driver_a_running_trial_is_abandoned(small_lake: Path, tmp_path: Path) -> None:
    """Nobody trains it any more."""
    status = run_status(tmp_path, begun(small_lake, tmp_path).run.run_id)
    assert status["state"] == "interrupted"
    assert [entry["state"] for entry in status["entries"]] == ["complete", "complete", "abandoned"]


def test_the_phase_follows_the_trainings_of_the_ledger(small_lake: Path, tmp_path: Path) -> None:
    """Trial 0 and three finalists under three seeds on three assets, then winner and trial 0 on the held-out ones.

    What a sweep did for others before it was given more trials does not count.
    """
    sweep = searched(small_lake, tmp_path)

    def phase() -> dict[str, Any]:
        found: dict[str, Any] = run_status(tmp_path, sweep.run.run_id)["phase"]
        return found

    assert phase() == {"name": "finalists", "number": 2, "of": 3, "done": 0, "total": 36}
    ended = sorted((one for one in read_trials(sweep.journal) if one.values), key=lambda one: -(one.values or (0,))[0])
    former, (start, winner) = ended[-1], (next(one for one in ended if one.is_baseline), ended[0])
    chosen = [start, *(one for one in ended if not one.is_baseline)][:4]
    ledger = Ledger(sweep.run.ledger)

    def evaluated(stage: str, trial: TrialRecord, times: int) -> None:
        for _ in range(times):
            ledger.append("evaluated", stage=stage, params=json.dumps(trial.params, sort_keys=True))

    evaluated("finalists", former, 9)
    evaluated("held-out", former, 5)
    assert phase()["name"] == "finalists"
    for trial in chosen:
        evaluated("finalists", trial, 9)
    total = 6 * len(sweep.plan.held_out)
    assert phase() == {"name": "held-out", "number": 3, "of": 3, "done": 0, "total": total}
    evaluated("held-out", chosen[2], 2)
    evaluated("held-out", start, 3)
    evaluated("held-out", winner, 1)
    ledger.close()
    assert phase()["done"] == 4


@pytest.mark.parametrize("adopted", [True, False])
def test_a_finished_sweep_marks_its_winner_and_says_the_verdict(
    small_lake: Path, tmp_path: Path, adopted: bool
) -> None:
    """In the list too; a finalist that is not adopted is no winner."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=adopted)
    status = run_status(tmp_path, sweep.run.run_id)
    best = status["best"]["trial"]
    assert status["phase"] is None
    assert status["verdict"]["adopted"] is adopted
    assert marks(status)[best] == ("winner" if adopted else "finalist")
    (info,) = list_runs(tmp_path)
    assert (info.adopted, info.verdict) == (best if adopted else None, status["verdict"]["reason"])


def test_two_objectives_mark_the_front(small_lake: Path, tmp_path: Path) -> None:
    """All error ratios are equal: only the highest macro F1 is on it."""
    sweep = searched(small_lake, tmp_path, two_objectives=True)
    status = run_status(tmp_path, sweep.run.run_id)
    assert marks(status)[status["best"]["trial"]] == "front"


def test_a_search_out_of_time_is_over_until_the_sweep_is_resumed(small_lake: Path, tmp_path: Path) -> None:
    """Nine of twelve trials: finalists are the phase; with the next driver the search is again."""
    sweep = lengthened(searched(small_lake, tmp_path))
    phases = [run_status(tmp_path, sweep.run.run_id)["phase"]]
    for event in (SEARCH_STOPPED, "opened"):
        ledger = Ledger(sweep.run.ledger)
        ledger.append(event)
        ledger.close()
        phases.append(run_status(tmp_path, sweep.run.run_id)["phase"])
    assert [(phase["name"], phase["done"], phase["total"]) for phase in phases] == [
        ("search", 9, 12),
        ("finalists", 0, 36),
        ("search", 9, 12),
    ]
    assert list_runs(tmp_path)[0].stopped is None
    concluded(sweep, adopted=True, out_of_time=True)
    (info,) = list_runs(tmp_path)
    assert (info.state, info.stopped) == ("finished", "stopped by --max-hours after 9 of 12 trials")
