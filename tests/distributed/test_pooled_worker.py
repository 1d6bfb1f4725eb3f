"""A worker of a pooled run goes on from a checkpoint, or says which one it cannot read."""

from pathlib import Path

import pytest
import torch

from b3dist.data.lake import Lake
from b3dist.data.pooled import load_pooled
from b3dist.distributed.pooled.worker import restore_state
from b3dist.errors import RunError
from b3dist.recipes import pooled
from b3dist.training.pooled import PooledFitting

CONFIG = pooled().with_overrides(["training.epochs=2"])
KNOWN_AS = "/runs/R/ray/R/checkpoint_2"


@pytest.fixture(scope="module")
def fitting(small_lake: Path) -> PooledFitting:
    """Two assets, one epoch trained."""
    lake = Lake(small_lake)
    fitting = PooledFitting(load_pooled(lake, list(lake.tickers()["ticker"])[:2], CONFIG.data), CONFIG)
    next(iter(fitting.epochs()))
    return fitting


def test_state_is_what_was_saved(fitting: PooledFitting, tmp_path: Path) -> None:
    """Weights and the epochs reported so far come back as they were."""
    weights = fitting.weights.clone()
    torch.save({**fitting.state(), "progress": [{"epoch": 1}]}, tmp_path / "state.pt")
    fitting.weights.zero_()
    assert restore_state(fitting, tmp_path, known_as=KNOWN_AS) == [{"epoch": 1}]
    assert torch.equal(fitting.weights, weights)


@pytest.mark.parametrize("damage", ["absent", "empty", "truncated", "garbage", "no progress", "no weights", "a list"])
def test_damaged_checkpoint_is_named_with_what_to_remove(fitting: PooledFitting, tmp_path: Path, damage: str) -> None:
    """A resume alone would fail on it for ever."""
    file = tmp_path / "state.pt"
    state = {**fitting.state(), "progress": []}
    torch.save(state, file)
    match damage:
        case "absent":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "truncated":
            file.write_bytes(file.read_bytes()[:-1000])
        case "garbage":
            file.write_bytes(b"no checkpoint at all")
        case "a list":
            torch.save([1], file)
        case _:
            torch.save({name: value for name, value in state.items() if name != damage.split()[1]}, file)
    with pytest.raises(RunError, match=f"the checkpoint {KNOWN_AS} is damaged: .") as caught:
        restore_state(fitting, tmp_path, known_as=KNOWN_AS)
    assert "\n" not in str(caught.value)
    assert caught.value.hint.startswith("remove /runs/R/ray/R, which holds all of this run, and resume")
