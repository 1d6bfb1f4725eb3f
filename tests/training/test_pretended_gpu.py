"""What trains on a GPU, on one that is not there: no tensor is left on the CPU, no step waits, and graphs hold."""

import contextlib
import dataclasses
import gc
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.data.pooled import load_pooled
from b3dist.distributed.fleet.stack_engine import StackEngine
from b3dist.errors import TrainingError
from b3dist.recipes import pooled
from b3dist.training.fused import Execution, StackFitting, fit_stack
from b3dist.training.fused_data import StackMember
from b3dist.training.packs import fit_halving
from b3dist.training.pooled import PooledFitting
from b3dist.training.pooled_bundle import PooledWriter
from b3dist.training.precision import cpu_has_bf16
from b3dist.training.trainer import Fit, fit_asset
from b3dist.tuning.cohort import Cohort
from b3dist.tuning.stacked_cohort import StackedTrials, evaluate_stacked
from tests.training.pooled_runs import QUICK
from tests.training.pretended_gpu import GPU, PretendedGpu
from tests.training.stacks import SMALL, config_of, make_asset

TINY = (*SMALL, "data.lookback=2", "training.epochs=3", "training.min_delta=0", "training.batch_size=128")


def make_members() -> list[StackMember]:
    """Five of different lengths: the longest ends early, one diverges, one has given weights, one weighs classes."""
    overrides: list[tuple[str, ...]] = [
        (),
        ("training.epochs=1",),
        ("training.learning_rate=1e30", "training.clip_norm=1e30"),
        ("loss.gamma=0.5", "training.sampler=shuffled"),
        ("loss.class_weights=true", "loss.return_weighting=sampled"),
    ]
    members = []
    for number, (own, rows) in enumerate(zip(overrides, (560, 760, 250, 260, 260), strict=True)):
        config = config_of(*TINY, *own)
        members.append(StackMember(data=make_asset(config, rows=rows, seed=number), config=config))
    (start,) = fit_stack(members[3:4])
    assert isinstance(start, Fit)
    members[3] = dataclasses.replace(members[3], start=start.model.state_dict())
    return members


def assert_same_fit(one: object, other: object) -> None:
    """To the bit, and on the CPU."""
    assert isinstance(one, Fit)
    assert isinstance(other, Fit)
    assert one.history == other.history
    assert (one.best_epoch, one.train_loss, one.val_loss) == (other.best_epoch, other.train_loss, other.val_loss)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])


@pytest.mark.parametrize("graphs", [False, True])
def test_a_stack_trains_without_the_cpu(graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's bits, also from graphs, which a compaction makes anew; steps neither wait nor copy."""
    members, gpu, steps = make_members(), PretendedGpu(), Counter[str]()
    expected = fit_stack(members)
    plain = StackFitting.run_epoch

    def watched(fitting: StackFitting) -> Any:
        before = len(gpu.events)
        loss = plain(fitting)
        steps.update(gpu.events[before:])
        steps["epochs"] += 1
        return loss

    monkeypatch.setattr(StackFitting, "run_epoch", watched)
    with gpu:
        found = fit_stack(members, device="cuda", execution=Execution(graphs=graphs))
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, TrainingError):
            assert isinstance(one, TrainingError)
        else:
            assert_same_fit(one, other)
    assert [type(one) for one in expected].count(TrainingError) == 1
    assert steps == {"epochs": 3, "copy: cpu to cuda": 6}, "an epoch's windows and masks, and nothing else"


def test_a_mistake_is_caught() -> None:
    """An index left on the CPU, a wait within a capture: each is refused, or this module would prove nothing."""
    with PretendedGpu() as gpu:
        there = torch.arange(6.0, device="cuda").view(2, 3)
        assert there.device == GPU
        with pytest.raises(RuntimeError, match="same device"):
            there.gather(1, torch.zeros(2, 1, dtype=torch.int64))
        with pytest.raises(TypeError, match="cuda:0"):
            there.numpy()
        assert float(there.sum()) == 15
        assert gpu.events == ["wait: aten._local_scalar_dense.default"]
        with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            there[there > 1]


def test_a_graph_replays_on_the_memory_it_was_captured_on() -> None:
    """A capture computes nothing; a replay reads and writes where it did, whatever a name stands for by then."""
    with PretendedGpu():
        total, step = torch.zeros(2, device="cuda"), torch.ones(2, device="cuda")
        first, graph = total, torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            total += step * 2
        assert total.tolist() == [0, 0]
        step.fill_(3)
        total = torch.zeros(2, device="cuda")
        graph.replay()
        assert (total.tolist(), first.tolist()) == ([0, 0], [6, 6])


BF16 = pytest.param("bf16", marks=pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no AVX-512 BF16 or AMX"))


@pytest.mark.parametrize("precision", ["fp32", BF16])
def test_one_asset_trains_there(precision: str) -> None:
    """The single engine's bits are the CPU's; bfloat16 too, which it reaches without autocast."""
    config = config_of(*TINY, f"training.precision={precision}", "loss.class_weights=true")
    data = make_asset(config)
    expected = fit_asset(data, config)
    with PretendedGpu():
        found = fit_asset(data, config, device="cuda", start=None)
    assert_same_fit(found, expected)


def test_a_pooled_model_trains_there(small_lake: Path, tmp_path: Path) -> None:
    """State and bundles are the CPU's, also after going on from a checkpoint of it."""
    lake = Lake(small_lake)
    config: Config = pooled().with_overrides([*QUICK, "training.micro_batch=64", "data.lookback=3"])
    data = load_pooled(lake, list(lake.tickers()["ticker"])[:2], config.data)
    config = dataclasses.replace(config, data=data.config)
    expected = PooledFitting(data, config)
    list(expected.epochs())
    with PretendedGpu():
        first = PooledFitting(data, config, device="cuda")
        next(first.epochs())
        found = PooledFitting(data, config, device="cuda")
        found.restore(first.state())
        list(found.epochs())
        state = found.state()
        writer = PooledWriter(found, config, lake_manifest_hash=lake.manifest_hash)
        writer.write_asset(0, tmp_path)
    assert state["history"] == expected.state()["history"]
    assert torch.equal(state["best_weights"], expected.best_weights)
    assert len(list(tmp_path.iterdir())) == 1


def test_trials_train_there() -> None:
    """Trials and evaluations as stacks: their scores are the CPU's, in packs sized to the device."""

    def scores(device: str) -> list[Any]:
        configs = [config_of(*TINY, own) for own in ("loss.gamma=1", "model.hidden_size=24")]
        assets = [make_asset(configs[0], rows=rows, seed=seed) for seed, rows in enumerate((300, 340))]
        trials = StackedTrials(
            {number: Cohort(assets=assets, config=config) for number, config in enumerate(configs)}, device=device
        )
        reports = [trials.advance() for _ in range(3)]
        members = [StackMember(data=data, config=config) for data in assets for config in configs]
        return [
            [score.to_dict() for report in reports for one in report.values() for score in one.assets.values()],
            [score.to_dict() for one in evaluate_stacked(members, device=device) for score in one.values()],
        ]

    with PretendedGpu():
        found = scores("cuda")
    assert found == scores("cpu")


def test_a_fleets_worker_trains_there(small_lake: Path, tmp_path: Path) -> None:
    """Two assets in one pack, as many as there is memory for: the bundles' predictions are the CPU's."""
    lake, config = Lake(small_lake), Config().with_overrides([*TINY])
    tickers = list(lake.tickers()["ticker"])[:2]
    written = {}
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        folder.mkdir()
        with PretendedGpu() if device == "cuda" else contextlib.nullcontext():
            engine = StackEngine(lake, config, folder, device=device, gpu_share=0.5)
            trained = [train() for _, train in engine.train(tickers)]
        assert engine.most == {"cpu": 8, "cuda": 512}[device]
        written[device] = [pq.ParquetFile(one.path / "predictions.parquet").read() for one in trained]
    assert written["cuda"] == written["cpu"]


def test_memory_of_a_pack_that_does_not_fit_is_free_before_its_half_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, also no graph, holds what an attempt held when the next one begins; no collector is asked."""
    alive: list[weakref.ref[StackFitting]] = []
    plain = StackFitting.judge

    def starved(fitting: StackFitting, *args: Any, **options: Any) -> Any:
        if len(fitting.order) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(fitting, *args, **options)

    def fit(members: Any) -> Any:
        assert [one for one in alive if one() is not None] == []
        fitting = StackFitting(members, device=GPU, dtype=torch.float32, execution=Execution(graphs=True))
        alive.append(weakref.ref(fitting))
        return fitting.run()

    members = [dataclasses.replace(member, start=None) for member in make_members()[3:]]
    monkeypatch.setattr(StackFitting, "judge", starved)
    gc.disable()
    try:
        with PretendedGpu():
            fits, size = fit_halving(members, fit)
    finally:
        gc.enable()
    assert (size, len(fits), len(alive)) == (1, 2, 3)
