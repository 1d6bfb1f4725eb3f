"""Training windows per second of a whole fleet against a bare nn.LSTM loop: `python bench/fleet.py`; prints one JSON.

A round is bare / fleet / bare: the bare loop is the card's arithmetic and nothing else (128 x 32 x 13, hidden 64, focal
and squared loss, Adam, clipping), one single-threaded process per core. The fleet is `b3dist fleet` on the real data
beside the repository, from the first asset leased to the last one written and logged. Ratios are per
round, then the median.
Growth: fewer assets, spread evenly over the lake's, cost the same per window; the driver's peak memory is from /proc.
"""

import argparse
import contextlib
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

DATA = Path(__file__).parents[1] / ".." / "shared" / "data" / "cotahist"

BARE = """
import sys, time
import torch
from torch import nn
from torch.nn import functional as F
torch.set_num_threads(1)
torch.manual_seed(0)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(13, 64, batch_first=True)
        self.drop = nn.Dropout(0.4)
        self.action, self.ret = nn.Linear(64, 3), nn.Linear(64, 1)
    def forward(self, x):
        last = self.drop(self.lstm(x)[0][:, -1])
        return self.action(last), self.ret(last).squeeze(1)
net = Net()
adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
x, action, ret = torch.randn(64, 128, 32, 13), torch.randint(0, 3, (64, 128)), torch.randn(64, 128) * 0.02
def step(i):
    logits, predicted = net(x[i % 64])
    chosen = F.log_softmax(logits, 1).gather(1, action[i % 64, :, None])[:, 0]
    loss = 20 * (-((1 - chosen.exp()) ** 3) * chosen).mean() + 50 * F.mse_loss(predicted, ret[i % 64])
    adam.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    adam.step()
for i in range(50):
    step(i)
print("ready", flush=True)
sys.stdin.readline()
started, steps = time.perf_counter(), 0
while time.perf_counter() - started < float(sys.argv[1]):
    step(steps)
    steps += 1
print(128 * steps / (time.perf_counter() - started), flush=True)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lake", type=Path, help="A lake of the real data; made in a temporary folder if absent.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare-seconds", type=float, default=15.0, help="Length of each bare loop.")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--growth", type=int, nargs="*", default=[25, 50], help="Numbers of assets beside all of them.")
    parser.add_argument("--assets", type=int, help="Not all assets: for a quick look.")
    parser.add_argument("--epochs", type=int, help="Not the card's 50: for a quick look.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(options, Path(scratch)), indent=1))


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All rounds, the growth series, and the medians."""
    lake = options.lake or ingest(scratch / "lake")
    tickers = trainable(lake)
    everything = spread(tickers, options.assets or len(tickers))
    sizes = sorted({size for size in options.growth if size < len(everything)})
    rounds, growth = [], {size: [] for size in (*sizes, len(everything))}
    for number in range(options.rounds):
        before = bare(options.cores, options.bare_seconds)
        whole = fleet(lake, everything, scratch / f"all-{number}", options)
        after = bare(options.cores, options.bare_seconds)
        rounds.append(
            {"bare_before": before, "bare_after": after, "ratio": whole["rate"] / ((before + after) / 2), **whole}
        )
        growth[len(everything)].append(whole)
        for size in sizes:
            growth[size].append(fleet(lake, spread(tickers, size), scratch / f"{size}-{number}", options))
        say(f"round {number + 1} of {options.rounds}: ratio {rounds[-1]['ratio']:.3f}")
    per_1000 = {size: statistics.median(run["seconds_per_1000"] for run in runs) for size, runs in growth.items()}
    memory = {size: statistics.median(run["driver_peak_mb"] for run in runs) for size, runs in growth.items()}
    least, most = min(growth), max(growth)
    return {
        "machine": f"{platform.processor() or platform.machine()}, {options.cores} cores",
        "command": " ".join(["python", *sys.argv]),
        "assets": len(everything),
        "ratio": statistics.median(entry["ratio"] for entry in rounds),
        "fleet_windows_per_s": statistics.median(entry["rate"] for entry in rounds),
        "first_lease_s": statistics.median(entry["first_lease_s"] for entry in rounds),
        "seconds_per_1000_windows": per_1000,
        "growth_spread": max(per_1000.values()) / min(per_1000.values()) - 1,
        "driver_mb_per_asset": (memory[most] - memory[least]) / (most - least) if most > least else None,
        "rounds": rounds,
    }


def ingest(lake: Path) -> Path:
    """The development data as a lake."""
    if not DATA.is_dir():
        raise SystemExit(f"there is no {DATA}: give --lake")
    files = [str(path) for path in sorted(DATA.glob("COTAHIST_A*.ZIP"))]
    command = [sys.executable, "-m", "b3dist", "ingest", *files, "--lake", str(lake), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return lake


def trainable(lake: Path) -> list[str]:
    """Tickers with 1,000 sessions and more, longest first."""
    from b3dist.data.lake import Lake

    table = Lake(lake).tickers().sort_values(["num_sessions", "ticker"], ascending=[False, True])
    return [str(ticker) for ticker in table.loc[table["num_sessions"] >= 1000, "ticker"]]


def spread(tickers: list[str], size: int) -> list[str]:
    """So many tickers, evenly from longest to shortest history."""
    return [tickers[index * len(tickers) // size] for index in range(size)]


def bare(cores: int, seconds: float) -> float:
    """Windows per second of the bare loop, all cores together, measured over the same time."""
    command = [sys.executable, "-c", BARE, str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with contextlib.ExitStack() as stack:
        loops = [
            stack.enter_context(
                subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(cores)
        ]
        for loop in loops:
            assert loop.stdout is not None and loop.stdout.readline() == "ready\n"
        for loop in loops:
            assert loop.stdin is not None
            loop.stdin.write("go\n")
            loop.stdin.flush()
        return sum(float(loop.communicate()[0]) for loop in loops)


def fleet(lake: Path, tickers: list[str], folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """One fleet run in a process of its own, logging to an MLflow store of its own."""
    command = [sys.executable, "-m", "b3dist", "fleet", "--lake", str(lake), "--runs", str(folder / "runs"), "--json"]
    command += ["--tickers", ",".join(tickers), "--workers", str(options.cores)]
    command += ["--set", f"training.epochs={options.epochs}"] if options.epochs else []
    started = time.time()
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as driver:
        peak_kb = 0
        while driver.poll() is None:
            peak_kb = max(peak_kb, peak_memory_kb(driver.pid))
            time.sleep(0.2)
        answer = json.loads(driver.communicate()[0])
    if driver.returncode or answer["trained"] != len(tickers):
        raise SystemExit(f"the fleet failed: {answer}")
    summary = json.loads((Path(answer["path"]) / "summary.json").read_text())
    times = summary["times"]
    seconds = max(summary["tracking"]["logged_at"], times["last_written_at"]) - times["first_lease_at"]
    return {
        "rate": answer["windows_trained"] / seconds,
        "seconds": seconds,
        "windows_trained": answer["windows_trained"],
        "first_lease_s": times["first_lease_at"] - started,
        "wall_s": time.time() - started,
        "seconds_per_1000": 1000 * seconds / answer["windows_trained"],
        "logging_after_last_asset_s": summary["tracking"]["logged_at"] - times["last_written_at"],
        "driver_peak_mb": peak_kb / 1024,
    }


def peak_memory_kb(pid: int) -> int:
    """A process's largest resident size so far, its children not counted; 0 once it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
