"""A sweep with `--engine stack` on a real Ray cluster: the single engine's numbers, several trials at once."""

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from b3dist.data.lake import Lake
from b3dist.distributed.ledger import read_ledger
from b3dist.distributed.run_list import list_runs
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.training.asset import load_asset
from b3dist.tuning.cohort import CohortTraining, evaluate_asset
from b3dist.tuning.journal import read_trials
from b3dist.tuning.scores import AssetScore
from tests.distributed.runs import PATIENCE_S, wait_for, workers_below
from tests.distributed.test_sweep import settled, start

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OPTIONS = [
    *("--tickers", "SIMA3,SIMA4,SIMB11", "--trials", "8", "--workers", "2", "--seeds", "1", "--finalists", "1"),
    *("--min-sessions", "300", "--set", "training.epochs=6", "--set", "data.label_set=forward_return"),
    *("--search", "training.learning_rate", "--search", "model.hidden_size=60:64"),
    *("--engine", "stack", "--trials-at-once", "3", "--halving", "--no-mlflow"),
]


def ended(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What a sweep that ends by itself answers."""
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stdout + stderr
    return dict(json.loads(stdout))


@pytest.fixture(scope="module")
def sweep(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Eight trials in packs of three on two workers, then finalists."""
    runs = tmp_path_factory.mktemp("stacked") / "runs"
    answer = ended(start(small_lake, runs, *OPTIONS))
    assert (answer["engine"], answer["trials"]) == ("stack", 8)
    return SweepFolder.open(runs, answer["sweep_id"])


def packs_of(sweep: SweepFolder) -> list[set[int]]:
    """Trials that began one right after the other, before any of them ended."""
    packs: list[set[int]] = [set()]
    for event in read_ledger(sweep.run.ledger):
        if event["event"] == "trial" and event["state"] == "running":
            packs[-1].add(event["number"])
        elif packs[-1]:
            packs.append(set())
    return [pack for pack in packs if pack]


@pytest.mark.timeout(600)
def test_trials_on_ray_are_those_of_the_single_engine(sweep: SweepFolder) -> None:
    """Every trial's values for as many epochs as it ran, within float sums."""
    assert max(len(pack) for pack in packs_of(sweep)) >= 3
    lake, states = Lake(sweep.run.settings.lake), Counter()
    for record in read_trials(sweep.journal):
        states[record.state] += 1
        assert record.values is not None
        config = sweep.plan.space.apply(sweep.config, record.params)
        training = CohortTraining([load_asset(lake, ticker, config) for ticker in sweep.plan.cohort], config)
        for _ in range(record.attributes["epochs"]):
            report = training.advance()
        assert record.values[0] == pytest.approx(report.score.macro_f1, abs=0.02)
        assert record.attributes["error_ratio"] == pytest.approx(report.score.error_ratio, rel=1e-3)
        assert record.attributes["windows_trained"] == report.windows_trained
        assert training.finished is (record.state == "complete")
    assert set(states) == {"complete", "pruned"}


def test_evaluations_on_ray_are_those_of_the_single_engine(sweep: SweepFolder) -> None:
    """Finalist and trial 0, trained in packs: each asset's scores on both parts, in the ledger once."""
    evaluated = [event for event in read_ledger(sweep.run.ledger) if event["event"] == "evaluated"]
    assert len({(event["params"], event["seed"], event["ticker"]) for event in evaluated}) == len(evaluated)
    events = [event for event in evaluated if event["stage"] == "finalists"]  # the others: if the finalist has won
    complete = [record for record in read_trials(sweep.journal) if record.state == "complete"]
    assert len(events) == 3 * min(len(complete), 2)
    lake = Lake(sweep.run.settings.lake)
    for event in events[::3]:
        config = sweep.plan.space.apply(sweep.config, json.loads(event["params"]))
        config = config.replace_setting("seed", event["seed"])
        alone = evaluate_asset(load_asset(lake, event["ticker"], config), config)
        for part, score in alone.items():
            stacked = AssetScore.from_dict(event["result"][part])
            assert stacked.squared_error == pytest.approx(score.squared_error, rel=1e-3)
            assert abs(stacked.confusion - score.confusion).sum() <= 2


def test_the_engine_is_on_record(sweep: SweepFolder) -> None:
    """In the plan, in the summary, and for each driver in the ledger."""
    settings = json.loads((sweep.run.path / "config.json").read_text(encoding="utf-8"))
    assert (settings["options"]["engine"], settings["options"]["trials_at_once"]) == ("stack", 3)
    summary = json.loads((sweep.run.path / "summary.json").read_text(encoding="utf-8"))
    assert (summary["engine"], summary["totals"]["abandoned"]) == ("stack", 0)
    assert [event["engine"] for event in read_ledger(sweep.run.ledger) if event["event"] == "opened"] == ["stack"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_auto_is_the_stack(small_lake: Path, tmp_path: Path) -> None:
    """As many trials at once as the search can bear, and the finalists in packs; nothing fails."""
    chosen = OPTIONS[: OPTIONS.index("--engine")]
    answer = ended(start(small_lake, tmp_path, *chosen, "--workers", "1", "--gpus-per-worker", "1", "--no-mlflow"))
    assert (answer["engine"], answer["trials"], answer["failed"]) == ("stack", 8, 0)


@pytest.mark.timeout(900)
def test_a_killed_driver_and_a_killed_worker_cost_time_only(small_lake: Path, tmp_path: Path) -> None:
    """The packs of a killed driver are begun again on the same engine; so is that of a worker killed between two."""
    runs = tmp_path / "runs"
    options = [*OPTIONS, "--trials", "12", "--no-halving", "--set", "training.epochs=40"]
    first = start(small_lake, runs, *options, "--set", "training.patience=40")
    sweep = SweepFolder.open(runs, wait_for(lambda: list_runs(runs) or None)[0].run_id)
    wait_for(lambda: len(packs_of(sweep)) >= 1 and len(settled(sweep)) >= 1)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=PATIENCE_S)
    before = settled(sweep)
    second = start(small_lake, runs, "--resume", sweep.run.run_id, "--no-mlflow")
    worker = wait_for(lambda: next(iter(workers_below(second.pid, "ray::TrialPack")), None))
    wait_for(lambda: len(settled(sweep)) > len(before))
    worker.kill()
    answer = ended(second)
    assert (answer["engine"], answer["trials"]) == ("stack", 12)
    records = {record.number: record for record in read_trials(sweep.journal)}
    assert [records[record.number] for record in before] == before
    assert any(record.was_abandoned for record in records.values())
    assert not [one for one in records.values() if "worker died" in str(one.attributes.get("error"))]
