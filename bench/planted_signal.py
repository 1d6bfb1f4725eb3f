"""Does the return head learn what is there, and nothing where nothing is? `python bench/planted_signal.py` prints JSON.

For each seed two markets are simulated, with and without a planted predictor of the 2-session return; every asset is
trained on both. The unit of evidence is a seed's mean test IC over assets, since assets of one market share its factor.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from b3dist.config import Config, DataConfig
from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.errors import InsufficientDataError
from b3dist.training.asset import load_asset
from b3dist.training.evaluation import evaluate_predictions, tabulate_predictions
from b3dist.training.trainer import fit_asset


@dataclass(frozen=True)
class Task:
    """One asset of one market under one feature set."""

    lake: Path
    ticker: str
    feature_set: str
    signal: float
    seed: int
    overrides: tuple[str, ...]


def run_task(task: Task) -> tuple[Task, float | None]:
    """Train one asset and return its test IC; None where it is skipped by rule or its predictions do not vary."""
    data = DataConfig(feature_set=task.feature_set, label_set="forward_return")  # type: ignore[arg-type]
    config = Config(data=data, seed=task.seed).with_overrides(task.overrides)
    try:
        asset = load_asset(Lake(task.lake), task.ticker, config)
    except InsufficientDataError:
        return task, None
    predictions = tabulate_predictions(asset, fit_asset(asset, config), config)
    return task, evaluate_predictions(predictions, "test", config.data.horizon)["return"]["ic"]


def build_tasks(folder: Path, arguments: argparse.Namespace) -> list[Task]:
    """Simulate and ingest every market; one task per market, feature set and asset."""
    tasks = []
    for seed in range(arguments.seeds):
        for signal in (0.0, arguments.signal):
            market, lake = folder / f"market-{seed}-{signal}", folder / f"lake-{seed}-{signal}"
            simulate(market, assets=arguments.assets, sessions=arguments.sessions, seed=seed, signal=signal)
            ingest([market], lake)
            tasks += [
                Task(lake, ticker, feature_set, signal, seed, tuple(arguments.overrides))
                for feature_set in arguments.feature_sets.split(",")
                for ticker in Lake(lake).tickers()["ticker"]
            ]
    return tasks


def summarise(results: list[tuple[Task, float | None]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Seed means with and without the signal, and their difference, per feature set."""
    summary: dict[str, Any] = {"signal": arguments.signal, "seeds": arguments.seeds, "assets": arguments.assets}
    for feature_set in arguments.feature_sets.split(","):
        means = {
            signal: [
                float(
                    np.mean([ic for task, ic in results if ic is not None and matches(task, feature_set, signal, seed)])
                )
                for seed in range(arguments.seeds)
            ]
            for signal in (0.0, arguments.signal)
        }
        planted, nothing = np.array(means[arguments.signal]), np.array(means[0.0])
        summary[feature_set] = {
            "ic_planted": [round(value, 4) for value in planted.tolist()],
            "ic_nothing": [round(value, 4) for value in nothing.tolist()],
            "mean_planted": round(float(planted.mean()), 4),
            "mean_nothing": round(float(nothing.mean()), 4),
            "mean_difference": round(float((planted - nothing).mean()), 4),
            "seeds_positive": int((planted > nothing).sum()),
        }
    return summary


def matches(task: Task, feature_set: str, signal: float, seed: int) -> bool:
    """Whether a task belongs to a cell of the table."""
    return (task.feature_set, task.signal, task.seed) == (feature_set, signal, seed)


def main() -> None:
    """Run and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--assets", type=int, default=24)
    parser.add_argument("--sessions", type=int, default=1500)
    parser.add_argument("--signal", type=float, default=0.3)
    parser.add_argument("--feature-sets", default="v1,v2")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="section.field=value")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tasks = build_tasks(Path(folder), arguments)
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
            results = []
            for count, result in enumerate(pool.map(run_task, tasks, chunksize=4), 1):
                results.append(result)
                if count % 24 == 0:
                    print(f"{count} of {len(tasks)} assets", file=sys.stderr, flush=True)
    print(json.dumps(summarise(results, arguments)))


if __name__ == "__main__":
    main()
