"""The flat optimizer and the schedule are torch.optim's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from b3dist.config import TrainingConfig
from b3dist.training.optimizer import EarlyStopping, FlatAdam, PlateauSchedule


@pytest.mark.parametrize("gradient_scale", [0.01, 1.0, 100.0])
def test_steps_equal_torchs_adam_after_clipping(gradient_scale: float) -> None:
    """Thirty steps with clipping and weight decay agree with clip_grad_norm_ and torch.optim.Adam, in float64."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, generator=generator, dtype=torch.float64)
    gradients = gradient_scale * torch.randn(30, 50, generator=generator, dtype=torch.float64)
    parameter = torch.nn.Parameter(start.clone())
    oracle = torch.optim.Adam([parameter], lr=1e-2, weight_decay=1e-2)
    weights, gradient = start.clone(), torch.zeros(50, dtype=torch.float64)
    ours = FlatAdam(weights, gradient, TrainingConfig(learning_rate=1e-2, weight_decay=1e-2))
    for step in gradients:
        parameter.grad = step.clone()
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        oracle.step()
        gradient.copy_(step)
        ours.step()
    torch.testing.assert_close(weights, parameter.detach(), rtol=1e-12, atol=1e-12)


@given(losses=st.lists(st.floats(0.1, 10.0), min_size=1, max_size=80), patience=st.integers(0, 6))
@settings(max_examples=50)
def test_the_schedule_equals_reduce_lr_on_plateau(losses: list[float], patience: int) -> None:
    """For any losses the learning rate follows torch's scheduler, down to its floor."""
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=1e-3)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, min_lr=1e-4)
    ours = PlateauSchedule(TrainingConfig(scheduler_patience=patience, min_learning_rate=1e-4))
    for loss in losses:
        oracle.step(loss)
        assert ours.update(loss) == optimizer.param_groups[0]["lr"]


def test_patience_counts_from_the_last_real_improvement() -> None:
    """An improvement beyond min_delta resets the count, a smaller one does not."""
    stopping = EarlyStopping(TrainingConfig(patience=3, min_delta=0.5))
    decisions = [stopping.should_stop(loss) for loss in (10.0, 9.0, 8.9, 8.8, 8.0, 7.9, 7.8, 7.7)]
    assert decisions == [False] * 7 + [True]
