"""The backward pass that is written out is autograd's of the reference."""

import pytest
import torch

from b3dist.model.stacked import stacked_forward
from b3dist.model.stacked_losses import loss_terms
from b3dist.model.stacked_lstm import last_hidden, last_hidden_at_evaluation, project_rows

NAMES = ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0")


@pytest.mark.parametrize("lookback", [2, 9])
def test_hidden_states_and_gradients_equal_autograds(lookback: int) -> None:
    """Three models, float64: last hidden states, with and without a backward pass, and all four gradients to 1e-12."""
    generator = torch.Generator().manual_seed(lookback)
    draw = {"generator": generator, "dtype": torch.float64}
    shapes = ((24, 5), (24, 6), (24,), (24,))
    weights = {name: torch.randn(3, *shape, **draw).requires_grad_() for name, shape in zip(NAMES, shapes, strict=True)}
    identity = torch.eye(6, dtype=torch.float64).repeat(3, 1, 1)  # heads that hand the hidden state through
    heads = {"action_head.weight": identity, "return_head.weight": identity[:, :1]}
    heads |= {"action_head.bias": torch.zeros(3, 6).double(), "return_head.bias": torch.zeros(3, 1).double()}
    rows = torch.randn(3, 20, 5, **draw)
    starts = torch.randint(0, 20 - lookback, (3, 7), generator=generator)
    windows = torch.stack([rows[k][starts[k][:, None] + torch.arange(lookback)] for k in range(3)])
    expected, _ = stacked_forward({**weights, **heads}, windows)
    factor = torch.randn(3, 7, 6, **draw)
    wanted = torch.autograd.grad((expected * factor).sum(), list(weights.values()))
    hidden = last_hidden(rows, starts, tuple(weights.values()), lookback=lookback)  # type: ignore[arg-type]
    torch.testing.assert_close(hidden, expected, atol=1e-12, rtol=0)
    found = torch.autograd.grad((hidden * factor).sum(), list(weights.values()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    projected = project_rows(rows, *(weights[name] for name in (NAMES[0], NAMES[2], NAMES[3])))
    evaluated = last_hidden_at_evaluation(projected, starts, weights[NAMES[1]], lookback=lookback)
    torch.testing.assert_close(evaluated, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 3.0])
def test_sure_predictions_have_finite_gradients(gamma: float) -> None:
    """Probabilities of exactly 1 and of about 0 neither overflow nor turn into NaN, for any exponent."""
    logits = torch.tensor([[[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]]], requires_grad=True)
    ones = torch.ones(1, 2)
    terms = loss_terms(
        logits,
        ones,
        action=torch.zeros(1, 2, dtype=torch.int64),
        target=ones,
        gamma=torch.tensor([gamma]),
        focal_weights=ones,
        squared_weights=ones,
    )
    (gradient,) = torch.autograd.grad(terms.sum(), logits)
    assert torch.isfinite(terms).all()
    assert torch.isfinite(gradient).all()
    assert terms[0].tolist() == [0.0, 200.0]
