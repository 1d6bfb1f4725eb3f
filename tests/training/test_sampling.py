"""Draws depend on seed and ticker only; balanced draws balance the classes that are there."""

import torch

from b3dist.training.sampling import asset_generator, draw_epoch, importance_weights, sampling_weights


def test_generators_repeat_per_asset_and_differ_between_assets() -> None:
    """Same seed and ticker: same stream; another ticker or seed: another."""
    streams = [
        torch.rand(4, generator=asset_generator(seed, ticker))
        for seed, ticker in ((0, "A"), (0, "A"), (0, "B"), (1, "A"))
    ]
    assert torch.equal(streams[0], streams[1])
    assert not torch.equal(streams[0], streams[2])
    assert not torch.equal(streams[0], streams[3])


def test_balanced_sampling_draws_present_classes_equally() -> None:
    """Two classes of 5 and 995 windows are drawn half and half; the absent class changes nothing."""
    action = torch.tensor([1] * 5 + [2] * 995)
    weights = sampling_weights(action, "balanced")
    drawn = torch.cat([draw_epoch(weights, "balanced", asset_generator(seed, "A")) for seed in range(20)])
    assert abs(float((action[drawn] == 1).double().mean()) - 0.5) < 0.02


def test_importance_weights_undo_the_sampler() -> None:
    """The weighted mean over draws estimates the plain mean over all windows."""
    action = torch.tensor([0] * 20 + [2] * 980)
    values = torch.where(action == 0, 100.0, 1.0)
    weights = sampling_weights(action, "balanced")
    importance = importance_weights(weights)
    drawn = torch.cat([draw_epoch(weights, "balanced", asset_generator(seed, "A")) for seed in range(50)])
    assert abs(float((importance[drawn] * values[drawn]).mean()) / float(values.mean()) - 1) < 0.05


def test_shuffled_sampling_takes_every_window_once() -> None:
    """An epoch is a permutation."""
    weights = sampling_weights(torch.zeros(50, dtype=torch.int64), "shuffled")
    assert sorted(draw_epoch(weights, "shuffled", asset_generator(0, "A")).tolist()) == list(range(50))
