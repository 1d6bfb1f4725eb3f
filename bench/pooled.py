"""The pooled model against a bare DistributedDataParallel loop: `python bench/pooled.py --lake LAKE` prints JSON.

A round is, for each number of workers, the bare loop and then `b3dist pooled` on the lake. The bare loop is the card's
arithmetic on ready-made windows and nothing else (nn.LSTM wrapped in DDP over gloo, the same global batch, Adam,
clipping), one single-threaded process per worker. Of the run two rates are taken: `training`, its steps alone,
and `whole`, from the first step to the last epoch's end with validation and checkpoints.
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
rank, size, batch = (int(word) for word in sys.argv[1:4])
seconds, store = float(sys.argv[4]), sys.argv[5]
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
for i in range(int(steps)):
    step(i)
print(batch * int(steps) / (time.perf_counter() - started), flush=True)
"""


def bare(workers: int, batch: int, seconds: float) -> float:
    """Windows per second of the bare loop."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", BARE, *map(str, (rank, workers, batch, seconds)), f"{folder}/store"],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for rank in range(workers)
        ]
        rates = [float(process.communicate(timeout=300)[0]) for process in processes]
    return min(rates)


def run_pooled(lake: Path, workers: int, batch: int, micro_batch: int, epochs: int) -> dict[str, Any]:
    """What `b3dist pooled` says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        settings = (f"training.batch_size={batch}", f"training.micro_batch={micro_batch}", f"training.epochs={epochs}")
        words = ["pooled", "--lake", str(lake), "--runs", folder, "--workers", str(workers), "--no-mlflow", "--json"]
        words += [word for setting in settings for word in ("--set", setting)]
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
            rate = bare(workers, options.batch, options.bare_seconds)
            answer = run_pooled(options.lake, workers, options.batch, options.micro_batch, options.epochs)
            found[str(workers)] = {
                "bare": round(rate),
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
        "speed_up": round(statistics.median(one[most]["training"] / one[least]["training"] for one in rounds), 3),
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
    parser.add_argument("--bare-seconds", type=float, default=8.0)
    print(json.dumps(measure(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
