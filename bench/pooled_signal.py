"""Does the pooled model learn what is there, and nothing where nothing is? `python bench/pooled_signal.py` prints JSON.

For each seed two markets are simulated, with and without a planted predictor of the 2-session return, and one model is
trained over all assets of each. The unit of evidence is a seed's mean test IC over assets.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from b3dist.data.lake import Lake, ingest
from b3dist.data.pooled import load_pooled
from b3dist.data.simulator import simulate
from b3dist.recipes import pooled
from b3dist.training.evaluation import evaluate_predictions, tabulate_predictions
from b3dist.training.pooled import PooledFitting
from b3dist.training.trainer import Fit


@dataclass(frozen=True)
class Task:
    """One market."""

    seed: int
    signal: float
    assets: int
    sessions: int
    overrides: tuple[str, ...]


def run_task(task: Task) -> tuple[Task, dict[str, Any]]:
    """Simulate a market, train the pooled model on it and return the mean test IC over assets."""
    config = dataclasses.replace(pooled().with_overrides(task.overrides), seed=task.seed)
    with tempfile.TemporaryDirectory() as folder:
        market, path = Path(folder) / "market", Path(folder) / "lake"
        simulate(market, assets=task.assets, sessions=task.sessions, seed=task.seed, signal=task.signal)
        ingest([market], path)
        lake = Lake(path)
        data = load_pooled(lake, lake.tickers()["ticker"], config.data)
    fitting = PooledFitting(data, config)
    for _ in fitting.epochs():
        pass
    model, correlations = fitting.best_model(), []
    for asset, target in zip(data.assets, fitting.targets, strict=True):
        if len(asset.test):
            fit = Fit(model=model, return_target=target, history=[], best_epoch=0, train_loss=None, val_loss=None)
            predictions = tabulate_predictions(asset, fit, config)
            correlations.append(evaluate_predictions(predictions, "test", config.data.horizon)["return"]["ic"])
    found = [ic for ic in correlations if ic is not None]
    return task, {
        "ic": float(np.mean(found)) if found else 0.0,
        "epochs": len(fitting.history),
        "best": fitting.best_epoch,
    }


def summarise(results: list[tuple[Task, dict[str, Any]]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Seed means with and without the signal, and their difference."""
    means = {
        signal: np.array([found["ic"] for task, found in results if task.signal == signal])
        for signal in (arguments.signal, 0.0)
    }
    planted, nothing = means[arguments.signal], means[0.0]
    difference = planted - nothing
    return {
        "signal": arguments.signal,
        "assets": arguments.assets,
        "sessions": arguments.sessions,
        "overrides": arguments.overrides,
        "ic_planted": planted.round(4).tolist(),
        "ic_nothing": nothing.round(4).tolist(),
        "mean_planted": round(float(planted.mean()), 4),
        "mean_nothing": round(float(nothing.mean()), 4),
        "mean_difference": round(float(difference.mean()), 4),
        "seeds": arguments.seeds,
        "seeds_positive": int((difference > 0).sum()),
        "best_epochs": [found["best"] for _, found in results],
        "accepted": bool(difference.mean() >= 0.08 and (difference > 0).all() and abs(nothing.mean()) <= 0.04),
    }


def main() -> None:
    """Run all tasks on all cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=int, default=24)
    parser.add_argument("--sessions", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--signal", type=float, default=0.15)
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    tasks = [
        Task(seed, signal, arguments.assets, arguments.sessions, tuple(arguments.overrides))
        for seed in range(arguments.seeds)
        for signal in (arguments.signal, 0.0)
    ]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        results = []
        for task, found in pool.map(run_task, tasks):
            print(f"seed {task.seed}, signal {task.signal:g}: {found}", file=sys.stderr, flush=True)
            results.append((task, found))
    print(json.dumps(summarise(results, arguments), indent=1))


if __name__ == "__main__":
    main()
