"""The pooled model against a bare DistributedDataParallel loop: `python bench/pooled.py --lake LAKE` prints JSON.

A round is, for each number of workers, the bare loop and then `b3dist pooled` on the lake. The bare loop is the card's
arithmetic on ready-made windows and nothing else (nn.LSTM wrapped in DDP over gloo, the same global batch, Adam,
clipping), one single-threaded process per worker. Of the run two rates are taken: `training`, its steps alone,
and `whole`, from the first step to the last epoch's end with validation and checkpoints. `core` is the same training
in a plain gloo group without Ray; its ratio in CPU time to the bare loop's holds on a machine that others use too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BARE = """
import sys, time
import torch, torch.distributed
from torch import nn
from torch.nn import functional as F
rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
batch, seconds = int(sys.argv[4]), float(sys.argv[5])
torch.set_num_threads(1)
torch.manual_seed(0)
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=size)
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
if size > 1:
    net = nn.parallel.DistributedDataParallel(net)
adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
mine = batch // size
x, action, ret = torch.randn(16, mine, 32, 13), torch.randint(0, 3, (16, mine)), torch.randn(16, mine)
def step(i):
    logits, predicted = net(x[i % 16])
    chosen = F.log_softmax(logits, 1).gather(1, action[i % 16, :, None])[:, 0]
    loss = 20 * (-((1 - chosen.exp()) ** 3) * chosen).mean() + 50 * F.mse_loss(predicted, ret[i % 16])
    adam.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    adam.step()
for i in range(20):
    step(i)
started = time.perf_counter()
for i in range(20):
    step(i)
steps = torch.tensor(max(20, int(seconds / (time.perf_counter() - started) * 20)))
torch.distributed.broadcast(steps, 0)
started = time.perf_counter()
cpu = time.process_time()
for i in range(int(steps)):
    step(i)
cpu = time.process_time() - cpu
print(batch * int(steps) / (time.perf_counter() - started), cpu / (batch * int(steps)), flush=True)
torch.distributed.destroy_process_group()
"""

CORE = """
import sys, time
import torch.distributed
from b3dist.data.lake import Lake
from b3dist.data.pooled import load_pooled
from b3dist.recipes import pooled
from b3dist.training.pooled import PooledFitting
rank, size = int(sys.argv[1]), int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=size)
config = pooled().with_overrides(sys.argv[5:])
lake = Lake(sys.argv[4])
data = load_pooled(lake, lake.tickers()["ticker"], config.data)
fitting = PooledFitting(data, config)
torch.distributed.barrier()
started, windows = time.perf_counter(), len(data.train) * config.training.epochs
for _ in fitting.epochs():
    pass
seconds = time.perf_counter() - started
stepping = fitting.stepping_s
print(windows / stepping, windows / seconds, fitting.workers.waited_s / seconds, fitting.stepping_cpu_s / windows)
torch.distributed.destroy_process_group()
"""


def group(script: str, workers: int, *words: object) -> list[list[float]]:
    """The numbers that each process of a gloo group prints."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(rank), str(workers), f"{folder}/store", *map(str, words)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for rank in range(workers)
        ]
        return [[float(word) for word in process.communicate(timeout=900)[0].split()] for process in processes]


def bare(workers: int, batch: int, seconds: float) -> tuple[float, float]:
    """Windows per second of the bare loop, and CPU seconds per window over all its processes."""
    printed = group(BARE, workers, batch, seconds)
    return min(rate for rate, _ in printed), sum(cpu for _, cpu in printed)


def core(options: argparse.Namespace, workers: int) -> dict[str, float]:
    """The training of `b3dist pooled` without Ray."""
    printed = group(CORE, workers, options.lake, *settings_of(options))
    training, whole, share, _ = printed[0]
    return {"training": training, "whole": whole, "share": share, "cpu": sum(numbers[3] for numbers in printed)}


def settings_of(options: argparse.Namespace) -> list[str]:
    """The overrides of a run."""
    return [
        f"training.batch_size={options.batch}",
        f"training.micro_batch={options.micro_batch}",
        f"training.epochs={options.epochs}",
    ]


def run_pooled(options: argparse.Namespace, workers: int) -> dict[str, Any]:
    """What `b3dist pooled` says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "pooled",
            "--lake",
            str(options.lake),
            "--runs",
            folder,
            "--workers",
            str(workers),
            "--no-mlflow",
            "--json",
        ]
        words += [word for setting in settings_of(options) for word in ("--set", setting)]
        finished = subprocess.run(
            [sys.executable, "-m", "b3dist", *words], capture_output=True, text=True, check=True, timeout=600
        )
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds, and the medians of their ratios."""
    rounds = []
    for number in range(options.rounds):
        found: dict[str, Any] = {}
        for workers in options.workers:
            rate, cpu = bare(workers, options.batch, options.bare_seconds)
            own = core(options, workers)
            found[str(workers)] = {
                "bare": round(rate),
                "core_training": round(own["training"]),
                "core_to_bare": round(own["training"] / rate, 3),
                "core_to_bare_in_cpu_time": round(cpu / own["cpu"], 3),
                "core_all_reduce_share": round(own["share"], 3),
            }
            if options.without_ray:
                continue
            answer = run_pooled(options, workers)
            found[str(workers)] |= {
                "training": round(answer["training_windows_per_s"]),
                "whole": round(answer["windows_per_s"]),
                "training_to_bare": round(answer["training_windows_per_s"] / rate, 3),
                "whole_to_bare": round(answer["windows_per_s"] / rate, 3),
                "all_reduce_share": answer["all_reduce_share"],
                "wall_seconds": answer["wall_seconds"],
            }
        print(f"round {number + 1}: {found}", file=sys.stderr, flush=True)
        rounds.append(found)
    medians = {
        workers: {name: statistics.median(one[workers][name] for one in rounds) for name in rounds[0][workers]}
        for workers in rounds[0]
    }
    least, most = str(min(options.workers)), str(max(options.workers))
    return {
        "batch": options.batch,
        "micro_batch": options.micro_batch,
        "epochs": options.epochs,
        "load_average": os.getloadavg()[0],
        "rounds": rounds,
        "medians": medians,
        "speed_up": round(
            statistics.median(one[most]["core_training"] / one[least]["core_training"] for one in rounds), 3
        ),
        "speed_up_of_the_bare_loop": round(
            statistics.median(one[most]["bare"] / one[least]["bare"] for one in rounds), 3
        ),
        "measured_at": time.strftime("%Y-%m-%d %H:%M"),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--micro-batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--without-ray", action="store_true", help="Only the core, in a plain gloo group.")
    parser.add_argument("--bare-seconds", type=float, default=8.0)
    print(json.dumps(measure(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
