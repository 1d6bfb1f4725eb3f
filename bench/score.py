"""Scoring without a server: `python bench/score.py --lake LAKE --runs RUNS --release ID`; prints one JSON.

bulk      one ticker and all tickers in one call, in process, one thread: the 105 real assets of 1,000 sessions and
          more, and a simulated exchange of 400 with models of the card's shape and random weights (the arithmetic is
          the same). Also how long a Scorer takes to build.
history   every session of 2012-2018 of all assets, features and Parquet included: in process without start-up (all
          cores), the same on the simulated exchange, and the whole command with its start-up, peak memory and CPU time.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from b3dist.cli.release import open_store
from b3dist.config import Config
from b3dist.data.features import FEATURE_NAMES, INVALID_ROWS, compute_features
from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.data.windows import bars_at_basis, fit_scaler
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.model.stacked import stack_states
from b3dist.release import ModelGroup, Release, ReleasedAsset, ReleasedModel
from b3dist.scoring import Scorer
from b3dist.scoring.bulk import score_span, write_scores
from b3dist.scoring.rows import read_columns
from b3dist.training.return_unit import ReturnTarget

SPAN = (datetime.date(2012, 1, 1), datetime.date(2018, 12, 31))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lake", type=Path, required=True, help="A lake of the real data.")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--release", required=True, help="A release of a run over that lake.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--simulated", type=int, default=400, help="Assets of the simulated exchange; 0: none.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(options, Path(scratch)), indent=1))


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Real and simulated."""
    lake = Lake(options.lake)
    release = open_store(None, options.runs).open(options.release)
    sizes = lake.tickers().set_index("ticker")["num_sessions"]
    long = [ticker for ticker in release.assets if sizes[ticker] >= 1000]
    result: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "command": " ".join(["python", *sys.argv]),
        "bulk_real": bulk(release, lake, long),
        "history_real": history(release, lake, scratch, options.rounds),
        "history_command": [command(options, scratch) for _ in range(options.rounds)],
    }
    if options.simulated:
        simulate(scratch / "files", assets=options.simulated, sessions=1500, seed=7)
        ingest([scratch / "files"], scratch / "lake")
        exchange = Lake(scratch / "lake")
        models = random_release(exchange)
        result["bulk_simulated"] = bulk(models, exchange, list(models.assets))
        result["history_simulated"] = history(models, exchange, scratch, options.rounds)
    return result


def bulk(release: Release, lake: Lake, tickers: list[str]) -> dict[str, Any]:
    """Building a scorer, then one ticker and all of them per call."""
    started = time.perf_counter()
    scorer = Scorer(release, lake, tickers=tickers)
    built = time.perf_counter() - started
    day = scorer.calendar[-10].astype(object)
    return {
        "assets": len(tickers),
        "rows_resident": sum(len(columns["session"]) for _, columns in read_columns(lake, tickers)),
        "build_s": round(built, 3),
        "one_ms": timed(lambda: scorer.score([scorer.locate(tickers[0])]), 300),
        "all_newest_ms": timed(lambda: scorer.score_all(), 60),
        "all_as_of_ms": timed(lambda: scorer.score_all(None, day), 60),
    }


def timed(call: Callable[[], object], times: int) -> dict[str, float]:
    """Median and 99th percentile of a call, milliseconds."""
    for _ in range(5):
        call()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - started))
    return {"p50": round(statistics.median(taken), 3), "p99": round(float(np.percentile(taken, 99)), 3)}


def history(release: Release, lake: Lake, scratch: Path, rounds: int) -> dict[str, Any]:
    """Every session of every asset into a file, without start-up."""
    results = []
    for _ in range(rounds):
        started, cpu = time.perf_counter(), time.process_time()
        totals = write_scores(scratch / "history.parquet", score_span(release, lake, SPAN))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        results.append({"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "rate": totals.rows / seconds})
    return {
        "windows": totals.rows,
        "assets": totals.assets,
        "windows_per_s": round(statistics.median(entry["rate"] for entry in results)),
        "windows_per_cpu_s": round(statistics.median(totals.rows / entry["cpu_seconds"] for entry in results)),
        "rounds": results,
    }


def command(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The whole verb in a process of its own."""
    words = [sys.executable, "-m", "b3dist", "score", "--lake", options.lake, "--runs", options.runs, "--json"]
    words += ["--release", options.release, "--history", f"{SPAN[0]}:{SPAN[1]}", "--out", scratch / "command.parquet"]
    started = time.perf_counter()
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        answer = json.loads(process.stdout.read())
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    wall = time.perf_counter() - started
    return {
        "rows": answer["rows"],
        "wall_s": round(wall, 2),
        "start_up_s": round(wall - answer["seconds"], 2),
        "scoring_s": answer["seconds"],
        "windows_per_s_without_start_up": round(answer["rows"] / answer["seconds"]),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }


def random_release(lake: Lake) -> Release:
    """Models of the card's shape with random weights, anchored at 60 % of each history."""
    config, assets, states = Config(), {}, []
    for slot, (ticker, columns) in enumerate(read_columns(lake, list(lake.tickers()["ticker"]))):
        row = int(0.6 * len(columns["session"]))
        features = compute_features(bars_at_basis(columns, float(columns["adjustment"][row])), "v1")
        model = ReleasedModel(
            group=0,
            slot=slot,
            model_sha256=f"{slot:064x}",
            anchor=columns["session"][row].astype(object),
            trained_until=columns["session"][row].astype(object),
            scaler=fit_scaler(features[INVALID_ROWS : row + 1]),
            return_target=ReturnTarget(unit="standardised", mean=0.0, scale=0.02),
        )
        assets[ticker] = ReleasedAsset(
            ticker=ticker,
            served=model,
            evaluated=model,
            run_id="random",
            metrics={},
            label_set=config.data.label_set,
            carried_over=False,
            source="own",
            facts={},
        )
        states.append(LstmMtl(13, config.model, generator=torch.Generator().manual_seed(slot)).state_dict())
    group = ModelGroup(
        data=config.data, model=config.model, feature_names=FEATURE_NAMES["v1"], weights=stack_states(states)
    )
    return Release(release_id="random", path=Path(), manifest={}, manifest_sha256="", assets=assets, groups=(group,))


if __name__ == "__main__":
    main()
