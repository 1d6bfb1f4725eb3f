"""Training windows per second of a stack against a loop over nn.LSTM: `python bench/stack.py`; prints one JSON object.

K synthetic assets of 1,000 training and 250 validation windows at the card's shapes. An epoch is what a fleet pays for:
draws, every training step, validation, schedules. The loop is the single engine, one asset after another on the same
device; its assets are alike, so a few of them are timed and the rest is the same again. Fewer epochs than 50 are timed
where an epoch takes long, after one that is not timed; `seconds_for_50_epochs` is the timed rate for all of them.

The roofline is what an epoch's steps cannot beat on this device: products at the rate that torch.bmm reaches for
exactly these shapes, and every activation written and read as often as it must at the rate of a large copy.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import numpy as np
import torch

from b3dist.config import Config, Precision
from b3dist.data.windows import AssetData, Scaler, Split
from b3dist.training.fused import Execution, StackFitting
from b3dist.training.fused_data import StackMember
from b3dist.training.trainer import Fitting

TRAIN, VAL, EPOCHS = 1000, 250, 50


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", type=int, nargs="*", default=[1, 8, 64, 400])
    parser.add_argument("--seconds", type=float, default=20.0, help="Least time spent on each measurement.")
    parser.add_argument("--precisions", nargs="*", help="Default: fp32, and on a GPU tf32 and bf16.")
    parser.add_argument("--graphs", action="store_true", help="On a GPU also replay CUDA graphs.")
    parser.add_argument("--triton", action="store_true", help="On a GPU also run the Triton recurrence.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(options), indent=1))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every size in every way."""
    device = torch.device(options.device)
    precisions = options.precisions or (["fp32", "tf32", "bf16"] if device.type == "cuda" else ["fp32"])
    ways = ["plain", *(["graphs"] if options.graphs else []), *(["triton"] if options.triton else [])]
    ways += ["triton+graphs"] if options.graphs and options.triton else []
    loop = time_loop(device, options.seconds)
    results = []
    for num_models in options.models:
        floor = roofline(num_models, device)
        for precision in precisions:
            for way in ways:
                result = time_stack(num_models, precision, way, device, options.seconds)
                result |= {"times_the_loop": result["windows_per_s"] / loop["windows_per_s"]}
                if precision == "fp32":
                    result |= {"roofline": floor, "share_of_roofline": floor["seconds"] / result["seconds_per_epoch"]}
                results.append({"models": num_models, "precision": precision, "way": way, **result})
                print(f"{num_models} {precision} {way}: {result['windows_per_s']:,.0f}/s", file=sys.stderr, flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "cores": len(os.sched_getaffinity(0)),
        "command": " ".join(["python", *sys.argv]),
        "torch": torch.__version__,
        "load_average": os.getloadavg()[0],
        "loop_over_nn_lstm": loop,
        "stack": results,
    }


def member(number: int, precision: str = "fp32") -> StackMember:
    """A synthetic asset: noise as rows, actions as rare as the card's."""
    rng = np.random.default_rng(number)
    config = Config().with_overrides([f"training.epochs={10 * EPOCHS}", f"training.patience={10 * EPOCHS}"])
    config = config.replace_setting("training.precision", precision)
    rows = TRAIN + VAL + 31

    def part(first: int, size: int) -> Split:
        ends = np.arange(first, first + size) + 31
        action = rng.choice(3, size, p=[0.02, 0.03, 0.95])
        action[:3] = [0, 1, 2]
        returns = rng.normal(0, 0.02, size)
        return Split(
            ends=ends,
            action=action,
            future_return=returns,
            future_close=20 * (1 + returns),
            spans_cash=np.zeros(size, dtype=bool),
        )

    data = AssetData(
        ticker=f"SYN{number}",
        sessions=np.datetime64("2015-01-01") + np.arange(rows),
        close=np.full(rows, 20.0),
        features=rng.normal(0, 1, (rows, 13)).astype(np.float32),
        feature_names=tuple(f"f{column}" for column in range(13)),
        scaler=Scaler(mean=np.zeros(13), scale=np.ones(13)),
        train=part(0, TRAIN),
        val=part(TRAIN, VAL),
        test=part(TRAIN, VAL),
        anchor=date(2020, 1, 1),
        dropped={},
    )
    return StackMember(data=data, config=config)


def repeat(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of one call: after one that is not counted, as many as fill the time, at least one.

    Of processor time where that does the work (one thread): what else the machine does then weighs little.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    work()
    wait(device)
    started, calls = clock(), 0
    while calls == 0 or clock() - started < seconds:
        work()
        wait(device)
        calls += 1
    return (clock() - started) / calls


def wait(device: torch.device) -> None:
    """Until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_loop(device: torch.device, seconds: float) -> dict[str, float]:
    """The single engine's epoch of one asset, in windows per second."""
    one = member(0)
    fitting = Fitting(one.data, one.config, device)
    epoch = repeat(fitting.advance, device, seconds)
    return {"windows_per_s": TRAIN / epoch, "seconds_per_epoch_of_one_model": epoch}


def time_stack(num_models: int, precision: Precision, way: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """An epoch of the whole stack."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    kernels = None
    if "triton" in way:
        from b3dist.model.triton_lstm import triton_kernels

        kernels = triton_kernels(precision)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        execution = Execution(
            pool=pool if device.type == "cuda" else None, kernels=kernels, graphs=way.endswith("graphs")
        )
        members = [member(number, precision) for number in range(num_models)]
        fitting = StackFitting(members, device=device, dtype=torch.float32, execution=execution)
        epochs = iter(range(1, 10**9))
        epoch = repeat(lambda: fitting.advance(next(epochs)), device, seconds)
    return {
        "windows_per_s": num_models * TRAIN / epoch,
        "seconds_per_epoch": epoch,
        "seconds_for_50_epochs": EPOCHS * epoch,
        "peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None,
    }


def roofline(num_models: int, device: torch.device) -> dict[str, float]:
    """The least an epoch's training steps can take in fp32, and what it is made of."""
    lookback, batch, features, size = 32, 128, 13, 64
    hidden, gate = (torch.randn(num_models, batch, width, device=device) for width in (size, 4 * size))
    weight = torch.randn(num_models, size, 4 * size, device=device)
    shapes: dict[str, tuple[torch.Tensor, torch.Tensor]] = {
        "forward": (hidden, weight),
        "to_hidden": (gate, weight.transpose(1, 2)),
    }
    at_once = 50 if device.type == "cuda" else 1  # as a step queues them: launching one takes longer than a small one
    flops = dict.fromkeys(shapes, at_once * 2.0 * num_models * batch * 4 * size * size)
    rates = {
        name: flops[name] / repeat(lambda pair=pair: [torch.bmm(*pair) for _ in range(at_once)], device, 0.5)
        for name, pair in shapes.items()
    }
    del hidden, gate, weight
    large = torch.empty(64 * 2**20, device=device)
    copied = torch.empty_like(large)
    bandwidth = 2 * 4 * large.numel() / repeat(lambda: copied.copy_(large), device, 0.5)
    windows = num_models * TRAIN
    per_step = 2.0 * 4 * size
    products = {
        "forward": windows * lookback * per_step * (features + size),
        "to_hidden": windows * lookback * per_step * (size + features + size),  # and the weights' gradients
    }
    # Gates written, overwritten by gradients, read for those and for the weights'; cells and hiddens written and read.
    traffic = windows * lookback * 4.0 * (4 * 4 * size + 2 * size + 2 * size)
    computing = sum(products[name] / rates[name] for name in products)
    return {
        "gemm_gflops": sum(rates.values()) / len(rates) / 1e9,
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "computing_seconds": computing,
        "moving_seconds": traffic / bandwidth,
        "seconds": max(computing, traffic / bandwidth),
    }


if __name__ == "__main__":
    main()
