"""What a training optimises, whether of one asset or of all: its loss, and how its windows are drawn."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from b3dist.config import Config
from b3dist.data.schema import ACTIONS
from b3dist.model.losses import MultiTaskLoss, inverse_frequency
from b3dist.training.sampling import importance_weights, sampling_weights


@dataclass(frozen=True)
class Objective:
    """Decided by the training part's actions and the configuration alone."""

    counts: Tensor
    """(3,) training windows per action."""
    loss: MultiTaskLoss
    sampling: Tensor
    """(n,) relative probability of drawing each window."""
    importance: Tensor | None
    """(n,) factor of a drawn window's return error that takes the sampling out again; None: it stays in."""

    @classmethod
    def of(cls, action: npt.NDArray[np.int64], config: Config, device: torch.device) -> "Objective":
        """Of training windows with these actions, (n,): loss and factors on the device, sampling on the CPU."""
        actions = torch.from_numpy(action)
        counts = torch.bincount(actions, minlength=len(ACTIONS))
        class_weights = inverse_frequency(counts).to(device) if config.loss.class_weights else None
        sampling = sampling_weights(actions, config.training.sampler)
        uniform = config.loss.return_weighting == "uniform"
        return cls(
            counts=counts,
            loss=MultiTaskLoss(config.loss, class_weights),
            sampling=sampling,
            importance=importance_weights(sampling).to(device) if uniform else None,
        )
