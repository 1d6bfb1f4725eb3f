"""What bf16 does to the rate and the metrics of a fleet on CPUs: `python bench/precision.py`; prints one JSON object.

Each seed trains the 105 development assets in fp32 and in bf16, with all that a fleet's worker does: read, prepare,
train, validate, evaluate, write. By default in this process, asset by asset in both precisions, in seconds of processor
time, so that other work on the machine weighs on neither; with --fleet by `b3dist fleet` on all cores, fp32 first for
one seed and bf16 first for the next, from the first asset leased to the last one written. Metrics: what bf16 changes at
the same seed, beside what another seed changes in fp32. What is measured is kept in --folder and found there again.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from fleet import ingest, say, spread, trainable

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.fleet.outcomes import digest
from b3dist.training.asset import train_asset

MEASURES = ("accuracy", "macro_f1", "ic", "return_mae", "overfit_ratio")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lake", type=Path, help="A lake of the real data; made in the folder if absent.")
    parser.add_argument("--folder", type=Path, help="Where runs are kept; a temporary folder if absent.")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--fleet", action="store_true", help="Whole fleets on Ray instead of a worker's work.")
    parser.add_argument("--assets", type=int, help="Not all assets: for a quick look.")
    parser.add_argument("--epochs", type=int, help="Not the card's 50: for a quick look.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(options, options.folder or Path(scratch)), indent=1))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All seeds, the rates' ratio, and the metrics' differences."""
    folder.mkdir(parents=True, exist_ok=True)
    lake = options.lake or (folder / "lake" if (folder / "lake").is_dir() else ingest(folder / "lake"))
    tickers = trainable(lake)
    tickers = spread(tickers, options.assets or len(tickers))
    runs: dict[str, dict[int, dict[str, Any]]] = {"fp32": {}, "bf16": {}}
    for number, seed in enumerate(options.seeds):
        if not options.fleet:
            for precision, measured in work(lake, tickers, folder / f"work-{seed}.json", seed, options).items():
                runs[precision][seed] = measured
            continue
        for precision in ("fp32", "bf16") if number % 2 == 0 else ("bf16", "fp32"):
            runs[precision][seed] = fleet(lake, tickers, folder / f"{precision}-{seed}", precision, seed, options)
    ratios = {seed: runs["bf16"][seed]["rate"] / runs["fp32"][seed]["rate"] for seed in options.seeds}
    return {
        "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "command": " ".join(["python", *sys.argv]),
        "assets": len(tickers),
        "windows_per_s": {name: {seed: run["rate"] for seed, run in by.items()} for name, by in runs.items()},
        "load_average": {name: {seed: run["load"] for seed, run in by.items()} for name, by in runs.items()},
        "ratio": ratios,
        "ratio_median": statistics.median(ratios.values()),
        "metrics": {name: compare(runs, options.seeds, name) for name in MEASURES},
    }


def work(
    lake_path: Path, tickers: list[str], kept: Path, seed: int, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Both precisions of one seed by this process alone, or what an earlier one left in the folder."""
    if not kept.exists():
        torch.set_num_threads(1)
        lake, before = Lake(lake_path), os.getloadavg()[0]
        seconds, windows = {"fp32": 0.0, "bf16": 0.0}, {"fp32": 0, "bf16": 0}
        metrics: dict[str, dict[str, Any]] = {"fp32": {}, "bf16": {}}
        for number, ticker in enumerate(tickers):
            for precision in ("fp32", "bf16") if number % 2 == 0 else ("bf16", "fp32"):
                settings = [f"training.precision={precision}", f"seed={seed}"]
                settings += [f"training.epochs={options.epochs}"] if options.epochs else []
                with tempfile.TemporaryDirectory() as scratch:
                    started = time.process_time()
                    trained = train_asset(lake, ticker, Config().with_overrides(settings), Path(scratch))
                    seconds[precision] += time.process_time() - started
                windows[precision] += trained.windows_trained
                metrics[precision][ticker] = digest(trained.metrics)
        load = [before, os.getloadavg()[0]]
        both = {
            name: {"rate": windows[name] / seconds[name], "load": load, "metrics": metrics[name]} for name in windows
        }
        kept.write_text(json.dumps(both))
        say(f"seed {seed}: {both['fp32']['rate']:,.0f} and {both['bf16']['rate']:,.0f} windows/s")
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text())
    return found


def fleet(
    lake: Path, tickers: list[str], folder: Path, precision: str, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One fleet in a process of its own, or what an earlier one left in the folder."""
    kept = folder / "measured.json"
    if not kept.exists():
        command = [
            sys.executable,
            "-m",
            "b3dist",
            "fleet",
            "--lake",
            str(lake),
            "--runs",
            str(folder / "runs"),
            "--json",
        ]
        command += ["--tickers", ",".join(tickers), "--precision", precision, "--seed", str(seed), "--engine", "single"]
        command += ["--set", f"training.epochs={options.epochs}"] if options.epochs else []
        before = os.getloadavg()[0]
        finished = subprocess.run(command, text=True, capture_output=True)
        if finished.returncode:
            raise SystemExit(f"the fleet failed: {finished.stderr[-2000:]}")
        answer = json.loads(finished.stdout)
        summary = json.loads((Path(answer["path"]) / "summary.json").read_text())
        measured = {
            "rate": answer["windows_trained"] / answer["train_seconds"],
            "load": [before, os.getloadavg()[0]],
            "metrics": {entry["ticker"]: entry["metrics"] for entry in summary["assets"]},
        }
        kept.write_text(json.dumps(measured))
        say(f"{precision}, seed {seed}: {measured['rate']:,.0f} windows/s")
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def compare(runs: dict[str, dict[int, dict[str, Any]]], seeds: list[int], name: str) -> dict[str, Any]:
    """One metric: fleet means per seed, and the typical change of an asset by precision and by seed."""

    def of(precision: str, seed: int) -> dict[str, float]:
        metrics = runs[precision][seed]["metrics"]
        return {ticker: values[name] for ticker, values in metrics.items() if values[name] is not None}

    def change(one: dict[str, float], other: dict[str, float]) -> list[float]:
        return [abs(one[ticker] - other[ticker]) for ticker in one.keys() & other.keys()]

    means = {
        precision: [statistics.fmean(of(precision, seed).values()) for seed in seeds] for precision in ("fp32", "bf16")
    }
    shifts = [low - full for low, full in zip(means["bf16"], means["fp32"], strict=True)]
    by_seed = [
        difference
        for one, other in itertools.combinations(seeds, 2)
        for difference in change(of("fp32", one), of("fp32", other))
    ]
    return {
        "fleet_mean": means,
        "shift_by_bf16": shifts,
        "deviation_over_fp32_seeds": statistics.stdev(means["fp32"]) if len(seeds) > 1 else None,
        "asset_change_by_bf16": statistics.fmean(
            d for seed in seeds for d in change(of("bf16", seed), of("fp32", seed))
        ),
        "asset_change_by_seed": statistics.fmean(by_seed) if by_seed else None,
    }


if __name__ == "__main__":
    main()
