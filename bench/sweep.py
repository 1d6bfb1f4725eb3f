"""What a trial of a sweep costs beyond its training: `python bench/sweep.py`; prints one JSON.

A sweep of 40 short trials on Ray Tune with one worker, and the same trials bare in a loop: the same search asked and
the same cohort trained in this process. Both see the same trials with the same values, which is checked. Overhead is
the time from one trial's end to the next one's, less the bare training, per trial; the start of Ray and of the first
worker is given apart.

With `--engine stack` a worker trains several trials at once, and other suggestions follow: then the sweep's own trials
are trained bare, one by one on the single engine, for as many epochs, and their values compared.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.distributed.ledger import read_ledger
from b3dist.distributed.sweep.drive import search_settings
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.training.asset import load_asset
from b3dist.tuning.cohort import CohortTraining
from b3dist.tuning.journal import TrialRecord, read_trials
from b3dist.tuning.study import Search


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--assets", type=int, default=3, help="Cohort.")
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--engine", choices=["single", "stack"], default="single")
    parser.add_argument("--trials-at-once", type=int, help="Of the stack engine.")
    parser.add_argument("--gpus-per-worker", type=float, default=0.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments, Path(folder)), indent=1))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both ways, and their difference."""
    simulate(folder / "files", assets=arguments.assets, sessions=arguments.sessions, seed=7)
    ingest([folder / "files"], folder / "lake")
    sweep, seconds = on_ray(arguments, folder)
    trials = [record for record in read_trials(sweep.journal) if record.state in ("complete", "pruned")]
    events = read_ledger(sweep.run.ledger)
    began = [event["time"] for event in events if event["event"] == "trial" and event["state"] == "running"]
    ended = [event["time"] for event in events if event["event"] == "trial" and event["state"] != "running"]
    bare = in_a_loop(sweep) if arguments.engine == "single" else one_by_one(sweep, trials)
    assert [one.params for one in trials] == [one["params"] for one in bare]
    steady = ended[-1] - ended[0] - sum(one["seconds"] for one in bare[1:])
    answer = {
        "command": " ".join(["python", *sys.argv]),
        "trials": len(trials),
        "largest_difference_of_values": max(
            abs(one.values[0] - other["values"][0]) for one, other in zip(trials, bare, strict=True) if one.values
        ),
        "bare_seconds_per_trial": statistics.fmean(one["seconds"] for one in bare),
        "epochs_per_trial": statistics.fmean(one.attributes["epochs"] for one in trials),
        "first_trial_s": ended[0] - began[0],
        "search_s": ended[-1] - began[0],
        "search_windows_per_s": sum(one.attributes["windows_trained"] for one in trials) / (ended[-1] - began[0]),
        "whole_command_s": seconds,
    }
    if arguments.engine == "stack":
        return answer
    return answer | {
        "overhead_s_per_trial": steady / (len(trials) - 1),
        "overhead_with_first_worker_s_per_trial": (ended[-1] - began[0] - sum(one["seconds"] for one in bare))
        / len(trials),
    }


def on_ray(arguments: argparse.Namespace, folder: Path) -> tuple[SweepFolder, float]:
    """`b3dist sweep` in a process of its own; no finalists beyond one, nobody held out."""
    command = [sys.executable, "-m", "b3dist", "sweep", "--lake", str(folder / "lake"), "--runs", str(folder / "runs")]
    command += [
        "--cohort",
        str(arguments.assets),
        "--trials",
        str(arguments.trials),
        "--workers",
        "1",
        "--held-out",
        "0",
    ]
    command += ["--finalists", "1", "--seeds", "1", "--no-mlflow", "--json", "--min-sessions", "300"]
    command += ["--engine", arguments.engine, "--gpus-per-worker", str(arguments.gpus_per_worker)]
    if arguments.trials_at_once is not None:
        command += ["--trials-at-once", str(arguments.trials_at_once)]
    command += ["--set", f"training.epochs={arguments.epochs}", "--set", "data.label_set=forward_return", "--halving"]
    started = time.perf_counter()
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return SweepFolder.open(folder / "runs", json.loads(answer)["sweep_id"]), time.perf_counter() - started


def in_a_loop(sweep: SweepFolder) -> list[dict[str, Any]]:
    """The same search without Ray; seconds are those of training alone."""
    lake, search, rows = Lake(sweep.run.settings.lake), Search(search_settings(sweep)), []
    assets = [load_asset(lake, ticker, sweep.config) for ticker in sweep.plan.cohort]
    while (suggestion := search.ask()) is not None:
        started = time.perf_counter()
        training = CohortTraining(assets, sweep.plan.space.apply(sweep.config, suggestion.params))
        stopped = False
        while not (training.finished or stopped):
            report = training.advance()
            stopped = search.report(suggestion.number, report.epoch, report.score) and not report.finished
        seconds = time.perf_counter() - started
        search.tell(suggestion.number, report.score, pruned=stopped, attributes={})
        rows.append({"params": suggestion.params, "values": (report.score.macro_f1,), "seconds": seconds})
    return rows


def one_by_one(sweep: SweepFolder, trials: list[TrialRecord]) -> list[dict[str, Any]]:
    """The given trials on the single engine, each for as many epochs; seconds are those of training alone."""
    lake, rows = Lake(sweep.run.settings.lake), []
    assets = [load_asset(lake, ticker, sweep.config) for ticker in sweep.plan.cohort]
    for trial in trials:
        started = time.perf_counter()
        training = CohortTraining(assets, sweep.plan.space.apply(sweep.config, trial.params))
        for _ in range(trial.attributes["epochs"]):
            report = training.advance()
        seconds = time.perf_counter() - started
        rows.append({"params": trial.params, "values": (report.score.macro_f1,), "seconds": seconds})
    return rows


if __name__ == "__main__":
    main()
