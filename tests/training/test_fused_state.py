"""What a stack carries per model behaves like the single engine's objects, one by one."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from b3dist.config import Config, TrainingConfig
from b3dist.training.fused_state import Hyperparameters, Layout, StackAdam, Watch, keep_slots
from b3dist.training.optimizer import EarlyStopping, PlateauSchedule

LOSSES = st.lists(st.lists(st.floats(0.1, 10.0) | st.just(math.nan), min_size=3, max_size=3), min_size=1, max_size=40)
PATIENCE = st.lists(st.integers(1, 6), min_size=3, max_size=3)


@given(losses=LOSSES, patience=PATIENCE, scheduler_patience=PATIENCE)
@settings(max_examples=40)
def test_schedules_and_patience_follow_each_models_own_losses(
    losses: list[list[float]], patience: list[int], scheduler_patience: list[int]
) -> None:
    """Learning rates, stops and best epochs of three models with rules of their own, for any losses, NaN included."""
    configs = [
        TrainingConfig(
            learning_rate=10.0**-slot,
            min_delta=0.1 * slot,
            patience=patience[slot],
            scheduler_patience=scheduler_patience[slot],
            scheduler_factor=0.3 + 0.2 * slot,
            min_learning_rate=1e-3,
        )
        for slot in range(3)
    ]
    hyper = Hyperparameters.of([Config(training=config) for config in configs], torch.device("cpu"))
    adam = StackAdam.of(torch.zeros(3, 2), hyper)
    watch = Watch.of(adam.weights)
    schedules, stops = [PlateauSchedule(c) for c in configs], [EarlyStopping(c) for c in configs]
    best = [(math.inf, 0)] * 3
    for epoch, row in enumerate(losses, start=1):
        adam.weights.fill_(epoch)
        over = watch.update(torch.tensor(row, dtype=torch.float64), epoch, adam, hyper)
        assert adam.learning_rate.tolist() == [s.update(loss) for s, loss in zip(schedules, row, strict=True)]
        assert over.tolist() == [s.should_stop(loss) for s, loss in zip(stops, row, strict=True)]
        best = [(loss, epoch) if loss < old[0] else old for loss, old in zip(row, best, strict=True)]
    assert watch.best_loss.tolist() == [loss for loss, _ in best]
    assert watch.best_epoch.tolist() == [epoch for _, epoch in best]
    assert watch.best_weights[:, 0].tolist() == [epoch for _, epoch in best]


def test_layout_places_tensors_apart_and_finds_them_again() -> None:
    """Tensors come back as they were put in, each beginning at a multiple of 16 elements, with zeros between."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(3, *shape, generator=generator) for name, shape in (("a", (5, 3)), ("b", (1,)))}
    layout = Layout({name: tensor[0] for name, tensor in tensors.items()})
    flat = layout.flatten(list(tensors.values()))
    assert {name: offset for name, (offset, _) in layout.places.items()} == {"a": 0, "b": 16}
    assert flat.shape == (3, 32)
    assert int((flat != 0).sum()) == 3 * 16
    for name, view in layout.views(flat).items():
        assert torch.equal(view, tensors[name])


def test_keeping_slots_copies_every_tensor() -> None:
    """The kept models' numbers are theirs, in the given order, and no longer share memory with the stack's."""
    hyper = Hyperparameters.of(
        [Config(training=TrainingConfig(learning_rate=rate)) for rate in (1.0, 2.0, 3.0)], torch.device("cpu")
    )
    kept = keep_slots(hyper, torch.tensor([2, 0]))
    assert kept.learning_rate.tolist() == [3.0, 1.0]
    kept.learning_rate.zero_()
    assert hyper.learning_rate.tolist() == [1.0, 2.0, 3.0]
