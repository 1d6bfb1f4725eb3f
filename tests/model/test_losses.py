"""The loss is the card's formula, and its gradient is finite where probabilities saturate."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from b3dist.config import LossConfig
from b3dist.model.losses import MultiTaskLoss, focal_loss, inverse_frequency


def test_focal_loss_equals_its_equation() -> None:
    """-(1 - p)^gamma log p of the true class, weighted by class."""
    rng = np.random.default_rng(0)
    logits, actions, weights = rng.normal(size=(50, 3)), rng.integers(0, 3, 50), np.array([2.0, 1.0, 0.5])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p = p[np.arange(50), actions]
    expected = -weights[actions] * (1 - p) ** 3 * np.log(p)
    found = focal_loss(torch.tensor(logits), torch.tensor(actions), gamma=3.0, class_weights=torch.tensor(weights))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_gamma_zero_is_cross_entropy() -> None:
    """Without focusing the loss is cross entropy."""
    logits, actions = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    torch.testing.assert_close(
        focal_loss(logits, actions, gamma=0.0), F.cross_entropy(logits, actions, reduction="none")
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_saturated_probabilities_have_finite_gradients(gamma: float) -> None:
    """A certain right answer and a certain wrong one both give finite gradients."""
    logits = torch.tensor([[1000.0, 0.0, 0.0], [-1000.0, 0.0, 0.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0, 0]), gamma=gamma).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_multi_task_loss_is_the_weighted_sum() -> None:
    """20 x mean focal + 50 x mean squared error; return weights multiply the squared errors."""
    generator = torch.Generator().manual_seed(1)
    logits, returns = torch.randn(8, 3, generator=generator), torch.randn(8, generator=generator)
    action, target, weights = (
        torch.arange(8) % 3,
        torch.randn(8, generator=generator),
        torch.rand(8, generator=generator),
    )
    loss = MultiTaskLoss(LossConfig())
    focal = focal_loss(logits, action, gamma=3.0).mean()
    torch.testing.assert_close(
        loss(logits, returns, action=action, target=target), 20 * focal + 50 * F.mse_loss(returns, target)
    )
    weighted = loss(logits, returns, action=action, target=target, return_weights=weights)
    torch.testing.assert_close(weighted, 20 * focal + 50 * (weights * (returns - target) ** 2).mean())


def test_absent_classes_get_no_weight_and_bias_none_else() -> None:
    """Weights of the present classes balance their counts; an absent class has weight 0."""
    weights = inverse_frequency(torch.tensor([0, 10, 90]))
    assert weights[0] == 0
    np.testing.assert_allclose((weights * torch.tensor([0, 10, 90])).numpy(), [0, 50, 50], rtol=1e-6)
