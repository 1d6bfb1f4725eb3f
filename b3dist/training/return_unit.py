"""The unit the return head learns in; everything outside training is in fractions."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from b3dist.config import ReturnUnit


@dataclass(frozen=True, kw_only=True)
class ReturnTarget:
    """Affine map between a return as a fraction and the trained unit: encoded = (fraction - mean) / scale."""

    unit: ReturnUnit
    mean: float
    scale: float

    @classmethod
    def fit(cls, training_returns: npt.NDArray[np.float64], unit: ReturnUnit) -> "ReturnTarget":
        """Map for a unit; `standardised` takes mean and deviation (ddof 0) from the training part's returns: (n,)."""
        if unit == "standardised":
            deviation = float(training_returns.std())
            return cls(unit=unit, mean=float(training_returns.mean()), scale=deviation if deviation > 0 else 1.0)
        return cls(unit=unit, mean=0.0, scale=0.01 if unit == "percent" else 1.0)

    def encode(self, fraction: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Fractions in the trained unit."""
        return (fraction - self.mean) / self.scale

    def decode(self, encoded: torch.Tensor) -> torch.Tensor:
        """Model outputs as fractions."""
        return encoded * self.scale + self.mean
