"""Does the search find an optimum that is known? `python bench/planted_optimum.py` prints one JSON.

The objective costs nothing and looks like a macro F1: a smooth bump over the four settings that are always searched,
with a skew and an interaction, so that no quadratic fits it; its peak is drawn anew for each seed. It goes through the
code that decides a sweep (`b3dist.tuning.study.Search`: Optuna's journal, sampler, pruner, surface), epoch by epoch.
Ray is left out, which decides nothing: `bench/sweep.py` checks that with one worker it runs the same trials as a loop.
Random search gets as many trials, none of them stopped early.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from b3dist.config import Config
from b3dist.distributed.sweep.suggest import PackSizes
from b3dist.tuning.scores import CohortScore
from b3dist.tuning.space import Point, SearchSpace, search_space
from b3dist.tuning.study import Search, SearchSettings, Suggestion

WEIGHTS = np.array([1.0, 0.8, 0.6, 1.0])
"""How much each setting matters."""
NEAR = 0.05
"""Share of each range within which the optimum counts as found."""


def height(point: Point, peak: Point) -> float:
    """The objective at a point of the unit cube: 0.5 at the peak, 0.2 far from it."""
    away = point - peak
    skewed = np.where(away > 0, np.abs(away) ** 1.8, np.square(away))
    return float(0.2 + 0.3 * np.exp(-4.0 * ((WEIGHTS * skewed).sum() + 0.5 * away[0] * away[1])))


def planted_peak(seed: int) -> Point:
    """The seed's optimum: every setting between a tenth and nine tenths of its range."""
    return np.random.default_rng([seed, 1]).uniform(0.1, 0.9, len(WEIGHTS))


def learnt(value: float, epoch: int, epochs: int) -> float:
    """What is reached of a final value after some epochs."""
    return value * (1.0 - 0.5 * float(np.exp(-4.0 * epoch / epochs)))


def search_once(space: SearchSpace, seed: int, arguments: argparse.Namespace, journal: Path | None) -> Point:
    """The best complete trial's place in the unit cube."""
    settings = SearchSettings(
        space=space,
        start=space.start(Config()),
        budget=arguments.trials,
        epochs=arguments.epochs,
        seed=seed,
        halving=arguments.halving,
    )
    search, peak = Search(settings, journal), planted_peak(seed)
    noise = np.random.default_rng([seed, 2])
    sizes = PackSizes(most=arguments.at_once)
    while asked := ask_together(search, sizes.next(search.num_left, workers=1)):
        values = {
            one.number: height(space.to_unit(one.params), peak) + arguments.noise * float(noise.normal())
            for one in asked
        }
        for epoch in range(1, arguments.epochs + 1):
            for number in list(values):
                score = CohortScore(macro_f1=learnt(values[number], epoch, arguments.epochs), error_ratio=1.0)
                stopped = search.report(number, epoch, score) and epoch < arguments.epochs
                if stopped or epoch == arguments.epochs:
                    search.tell(number, score, pruned=stopped, attributes={})
                    del values[number]
    ended = [record for record in search.records() if record.state == "complete" and record.values]
    return space.to_unit(max(ended, key=lambda record: record.values or (0.0,)).params)


def ask_together(search: Search, size: int) -> list[Suggestion]:
    """The next trials to run at once; none once all have begun."""
    asked = [search.ask(together=size > 1) for _ in range(size)]
    return [one for one in asked if one is not None]


def random_once(seed: int, trials: int) -> Point:
    """The best of as many points drawn evenly, trial 0 among them."""
    points = np.random.default_rng([seed, 3]).uniform(0.0, 1.0, (trials, len(WEIGHTS)))
    points[0] = 0.5
    return points[int(np.argmax([height(point, planted_peak(seed)) for point in points]))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--noise", type=float, default=0.0, help="Standard deviation added to the objective.")
    parser.add_argument("--at-once", type=int, default=1, help="Trials that run together, as with --engine stack.")
    parser.add_argument(
        "--halving", action="store_true", help="Stop trials early, as a sweep of 12 epochs or more does."
    )
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments), indent=1))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Distances and regrets of both searches, seed by seed."""
    space = search_space(Config())
    rows = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            found = search_once(space, seed, arguments, Path(folder) / "journal.log")
        drawn, peak = random_once(seed, arguments.trials), planted_peak(seed)
        rows.append(
            {
                "seed": seed,
                "distance": float(np.abs(found - peak).max()),
                "random_distance": float(np.abs(drawn - peak).max()),
                "regret": height(peak, peak) - height(found, peak),
                "random_regret": height(peak, peak) - height(drawn, peak),
            }
        )
        print(f"seed {seed}: {rows[-1]['distance']:.3f} of the range away", file=sys.stderr, flush=True)
    regret, random_regret = (np.array([row[name] for row in rows]) for name in ("regret", "random_regret"))
    return {
        "command": " ".join(["python", *sys.argv]),
        "found": int(sum(row["distance"] <= NEAR for row in rows)),
        "found_by_random": int(sum(row["random_distance"] <= NEAR for row in rows)),
        "seeds": arguments.seeds,
        "median_regret": float(np.median(regret)),
        "median_random_regret": float(np.median(random_regret)),
        "wilcoxon_p": float(wilcoxon(regret, random_regret, alternative="less").pvalue),
        "rows": rows,
    }


if __name__ == "__main__":
    main()
