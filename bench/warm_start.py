"""Is a warm start better than training from scratch? `python bench/warm_start.py --lake LAKE` prints JSON.

For each seed one pooled model is trained, and every asset both from scratch and from the pooled model, all under the
same calendar cut, so that every test window is the same and none was trained on by anybody. Predictions are averaged
over nothing: each seed's are judged, then the figures are averaged over seeds. Intervals are 95 %, from resampling
blocks of 20 sessions for all assets and arms together: assets of one session are no independent evidence.
Without --lake markets with a planted signal are simulated, one per seed. With --shorten N the assets that are trained
alone have only their last N sessions before the cut, for themselves and in the pooled model: as a young asset has.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from b3dist.config import Config, TrainingConfig
from b3dist.data.lake import Lake, ingest
from b3dist.data.pooled import PooledData, load_pooled, pool_histories
from b3dist.data.simulator import simulate
from b3dist.data.windows import BAR_COLUMNS, AssetData, read_history
from b3dist.errors import InsufficientDataError
from b3dist.recipes import pooled
from b3dist.training.asset import load_asset
from b3dist.training.evaluation import tabulate_predictions
from b3dist.training.metrics import macro_f1
from b3dist.training.pooled import PooledFitting
from b3dist.training.return_unit import ReturnTarget
from b3dist.training.trainer import Fit, fit_asset
from b3dist.training.warm_start import InitialModel, starting_state

BLOCK, RESAMPLES = 20, 400
ARMS: dict[str, tuple[str, ...]] = {
    "scratch": (),
    "warm, rate 1e-3": ("training.epochs=10",),
    "warm, rate 1e-4": ("training.epochs=10", "training.learning_rate=1e-4"),
}


@dataclass
class Scores:
    """One arm's test predictions of one asset."""

    sessions: npt.NDArray[np.datetime64]
    truth: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]
    macro_f1: float


@dataclass
class SeedResult:
    """Everything one seed gives."""

    seed: int
    scores: dict[str, dict[str, Scores]] = field(default_factory=dict)
    """By arm, then by ticker."""
    seconds: dict[str, float] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    """Sessions of each asset."""


def run_seed(seed: int, arguments: argparse.Namespace) -> SeedResult:
    """Train all arms with one seed."""
    result = SeedResult(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.lake or Path(folder) / "lake"
        if arguments.lake is None:
            simulate(Path(folder) / "market", assets=24, sessions=1500, seed=seed, signal=arguments.signal)
            ingest([Path(folder) / "market"], path)
        lake = Lake(path)
        table = lake.tickers()
        result.lengths = dict(zip(table["ticker"], table["num_sessions"].tolist(), strict=True))
        config = dataclasses.replace(pooled().with_overrides(arguments.overrides), seed=seed)
        started = time.process_time()
        data = load_pooled(lake, table["ticker"], config.data)
        young: date | None = None
        if arguments.shorten:
            data, young = shorten(lake, data, arguments)
        fitting = PooledFitting(data, config)
        for _ in fitting.epochs():
            pass
        model = fitting.best_model()
        result.seconds["pooled"] = time.process_time() - started
        alone = dataclasses.replace(data.config, from_session=young)
        cut = dataclasses.replace(config, data=alone, training=TrainingConfig())
        for number, asset in enumerate(data.assets):
            if not len(asset.test):
                continue
            target = fitting.targets[number]
            fit = Fit(model=model, return_target=target, history=[], best_epoch=0, train_loss=None, val_loss=None)
            result.scores.setdefault("pooled", {})[asset.ticker] = score(asset, fit, cut)
            initial = InitialModel(
                state=model.state_dict(),
                model_sha256="",
                origin="pooled",
                config=cut,
                scaler=asset.scaler,
                return_target=target,
                anchor=None,
                selectable_from=data.config.validation_from,  # type: ignore[arg-type]
                testable_from=data.config.test_from,  # type: ignore[arg-type]
                trained_until=data.config.validation_from - timedelta(days=1),  # type: ignore[operator]
                source="pooled",
            )
            if number % arguments.every == 0:
                run_asset(lake, asset.ticker, initial, cut, result)
        print(f"seed {seed}: {result.seconds}", file=sys.stderr, flush=True)
    return result


def shorten(lake: Lake, data: PooledData, arguments: argparse.Namespace) -> tuple[PooledData, date]:
    """The same data under the same cut, with young assets, and the first session that these have."""
    calendar = lake.calendar()
    before = int(np.searchsorted(calendar, np.datetime64(data.config.validation_from)))  # type: ignore[arg-type]
    first: date = calendar[before - arguments.shorten].astype(object)
    histories = []
    for number, asset in enumerate(data.assets):
        bars = lake.bars(asset.ticker, BAR_COLUMNS)
        columns = {name: bars[name].to_numpy() for name in BAR_COLUMNS}
        young = number % arguments.every == 0 and bool(len(asset.test))
        own = dataclasses.replace(data.config, from_session=first, min_sessions=1) if young else data.config
        histories.append(read_history(asset.ticker, columns, calendar, own))
    return pool_histories(histories, data.config), first


def run_asset(lake: Lake, ticker: str, initial: InitialModel, cut: Config, result: SeedResult) -> None:
    """Train one asset in every arm; nothing where it has too little before the cut."""
    try:
        asset = load_asset(lake, ticker, cut)
    except InsufficientDataError:
        return
    for arm, overrides in ARMS.items():
        config = cut.with_overrides(overrides)
        start = None
        if arm != "scratch":
            target = ReturnTarget.fit(asset.train.future_return, config.loss.return_unit)
            start = starting_state(initial, asset, target, basis=1.0)
        started = time.process_time()
        fit = fit_asset(asset, config, start=start)
        result.seconds[arm] = result.seconds.get(arm, 0.0) + time.process_time() - started
        result.scores.setdefault(arm, {})[ticker] = score(asset, fit, config)


def score(asset: AssetData, fit: Fit, config: Config) -> Scores:
    """The test part's predictions."""
    table = tabulate_predictions(asset, fit, config)
    test = table.filter(pc.equal(table["split"], "test"))
    columns = {name: test[name].to_numpy() for name in ("session", "y_return", "return_pred", "y_action", "action")}
    return Scores(
        columns["session"],
        columns["y_return"],
        columns["return_pred"],
        macro_f1(columns["y_action"], columns["action"]),
    )


def figures(scores: dict[str, Scores], tickers: list[str], weights: dict[Any, int] | None) -> dict[str, float]:
    """Mean over assets of IC and of RMSE relative to persistence; sessions count as often as `weights` says."""
    correlations, ratios = [], []
    for ticker in tickers:
        one = scores[ticker]
        repeat = np.ones(len(one.truth), int) if weights is None else weights_of(one.sessions, weights)
        truth, predicted = np.repeat(one.truth, repeat), np.repeat(one.predicted, repeat)
        if len(truth) > 20 and truth.std() > 0 and predicted.std() > 0:
            correlations.append(np.corrcoef(truth, predicted)[0, 1])
            ratios.append(np.sqrt(np.mean((truth - predicted) ** 2) / np.mean(truth**2)))
    return {"ic": float(np.mean(correlations)), "rmse_ratio": float(np.mean(ratios))}


def weights_of(sessions: npt.NDArray[np.datetime64], weights: dict[Any, int]) -> npt.NDArray[np.int64]:
    """How often each session was drawn."""
    return np.array([weights.get(session, 0) for session in sessions.tolist()], dtype=np.int64)


def compare(results: list[SeedResult], tickers: list[str]) -> dict[str, Any]:
    """Every arm's figures over the same assets, and their differences from scratch, with intervals."""
    arms = ["scratch", "pooled", *(arm for arm in ARMS if arm != "scratch")]
    calendar = sorted({s for r in results for t in tickers for s in r.scores["pooled"][t].sessions.tolist()})
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        starts = rng.integers(0, max(len(calendar) - BLOCK, 1), -(-len(calendar) // BLOCK))
        weights: dict[Any, int] = {}
        for start in starts:
            for session in calendar[start : start + BLOCK]:
                weights[session] = weights.get(session, 0) + 1
        draws.append(weights)
    table = {
        arm: np.array(
            [
                np.mean([list(figures(r.scores[arm], tickers, weights).values()) for r in results], axis=0)
                for weights in [None, *draws]
            ]
        )
        for arm in arms
    }
    return {
        arm: {
            **{name: interval(table[arm][:, column]) for column, name in enumerate(("ic", "rmse_ratio"))},
            **{
                f"{name}_minus_scratch": interval(table[arm][:, column] - table["scratch"][:, column])
                for column, name in enumerate(("ic", "rmse_ratio"))
                if arm != "scratch"
            },
            "macro_f1": round(float(np.mean([r.scores[arm][t].macro_f1 for r in results for t in tickers])), 4),
            "ic_by_seed": [round(figures(r.scores[arm], tickers, None)["ic"], 4) for r in results],
        }
        for arm in arms
    }


def interval(values: npt.NDArray[np.float64]) -> list[float]:
    """The figure, and the 2.5 and 97.5 per cent points of its resamples."""
    return [round(float(value), 4) for value in (values[0], *np.percentile(values[1:], [2.5, 97.5]))]


def main() -> None:
    """Run the seeds side by side and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--signal", type=float, default=0.15)
    parser.add_argument("--every", type=int, default=1, help="Train every n-th asset alone; the pooled model sees all.")
    parser.add_argument("--shorten", type=int, default=0, help="Sessions before the cut of assets trained alone.")
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        results = list(pool.map(run_seed, range(arguments.seeds), [arguments] * arguments.seeds))
    first, answer = results[0], {}
    for name, low, high in (("1000 sessions or more", 1000, 10**9), ("250 to 999 sessions", 250, 999)):
        everywhere = set.intersection(*(set(r.scores["scratch"]) for r in results))
        tickers = sorted(
            t for t in everywhere if low <= first.lengths[t] <= high and len(first.scores["pooled"][t].truth) > 20
        )
        if tickers:
            answer[name] = {"assets": len(tickers), **compare(results, tickers)}
        alone = [] if arguments.every > 1 else [t for t in first.scores["pooled"] if t not in everywhere]
        alone = [t for t in alone if low <= first.lengths[t] <= high]
        if alone:
            answer[f"{name}, no training part before the cut"] = {"assets": len(alone)}
            only = [figures(r.scores["pooled"], sorted(alone), None) for r in results]
            answer[f"{name}, no training part before the cut"]["pooled_ic"] = round(
                float(np.mean([one["ic"] for one in only])), 4
            )
    answer["cpu_seconds"] = {
        arm: round(float(np.mean([r.seconds[arm] for r in results])), 1) for arm in ("pooled", *ARMS)
    }
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
