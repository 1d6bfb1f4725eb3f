"""How early can a trial be judged? `python bench/rungs.py --lake LAKE` prints one JSON.

Trains sets of the four settings that are always searched, drawn evenly from their ranges (the first is the card's), on
a cohort to their end. For a training of so many epochs: the rank correlation, over sets, of macro F1 after a third of
them, where successive halving stops trials, with macro F1 at the end; 95 % bootstrap interval over sets. And whether
the best set would have been stopped, and what the trials would have cost: means over random orders of trial.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.recipes import recipe
from b3dist.training.asset import load_asset
from b3dist.tuning.cohort import CohortTraining
from b3dist.tuning.space import search_space
from b3dist.tuning.study import REDUCTION, first_rung

COHORT = "PETR4,VALE3,ITUB4,BBDC4,ABEV3,BBAS3,USIM5,CSNA3,MGLU3,LREN3"

Curves = npt.NDArray[np.float64]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--tickers", default=COHORT)
    parser.add_argument("--trials", type=int, default=30, help="Sets; at least 3.")
    parser.add_argument("--orders", type=int, default=4000)
    arguments = parser.parse_args()
    curves = train(Lake(arguments.lake), arguments.tickers.split(","), arguments.trials)
    epochs = [end for end in (3, 6, 9, 12, 15, 18, 21) if end <= curves.shape[1]]
    rows = [judge(curves, end, orders=arguments.orders) for end in epochs]
    print(json.dumps({"command": " ".join(["python", *sys.argv]), "trials": len(curves), "rows": rows}, indent=1))


def train(lake: Lake, tickers: Sequence[str], trials: int) -> Curves:
    """(trials, epochs) pooled macro F1."""
    base: Config = recipe("card")
    space, rng, curves = search_space(base), np.random.default_rng(0), []
    assets = [load_asset(lake, ticker, base) for ticker in tickers]
    for number in range(trials):
        drawn = space.from_unit(rng.uniform(0.0, 1.0, len(space.names)))
        training = CohortTraining(assets, space.apply(base, drawn if number else space.start(base)))
        curve = []
        while not training.finished:
            curve.append(training.advance().score.macro_f1)
        curves.append(curve)
        print(f"set {number}: {curve[-1]:.4f} after {len(curve)} epochs", file=sys.stderr, flush=True)
    shortest = min(len(curve) for curve in curves)
    return np.array([curve[:shortest] for curve in curves])


def judge(curves: Curves, end: int, *, orders: int) -> dict[str, Any]:
    """What the rung of trainings of `end` epochs says about them."""
    rung, final = curves[:, first_rung(end) - 1], curves[:, end - 1]
    rng, count = np.random.default_rng(0), len(curves)
    again = [rng.integers(0, count, count) for _ in range(2000)]
    told = [spearmanr(rung[one], final[one])[0] for one in again if len(set(one)) > 2]  # else there is no rank to tell
    low, high = np.percentile(told, [2.5, 97.5])
    stopped, costs = [], []
    for _ in range(orders):
        kept = halve(rung, [0, *rng.permutation(np.arange(1, count))])
        stopped.append(int(final.argmax()) not in kept)
        costs.append((len(kept) * end + (count - len(kept)) * first_rung(end)) / (count * end))
    return {
        "epochs": end,
        "rung": first_rung(end),
        "rank_correlation": float(spearmanr(rung, final)[0]),
        "interval": [float(low), float(high)],
        "best_stopped": float(np.mean(stopped)),
        "cost": float(np.mean(costs)),
    }


def halve(rung: npt.NDArray[np.float64], order: Sequence[int]) -> set[int]:
    """The trials that go on, by Optuna's asynchronous halving: among the best third so far, and the first."""
    seen: list[float] = []
    kept = set()
    for number in order:
        seen.append(float(rung[number]))
        least = sorted(seen, reverse=True)[max(len(seen) // REDUCTION - 1, 0)]
        if number == 0 or rung[number] >= least:
            kept.add(number)
    return kept


if __name__ == "__main__":
    main()
