"""Start an asset's training from a model that is trained already: the pooled one, or the asset's own previous one.

The other model was fitted to other scales: its inputs' mean and deviation, its returns', perhaps another price basis.
All of these are affine, and so are the model's first and last layers: the start's weights are the other's with the
change of scale multiplied in, so that before the first step both models predict the same (to float32).
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from b3dist.config import Config
from b3dist.data.features import BASIS_EXPONENTS, FEATURE_NAMES
from b3dist.data.lake import Lake
from b3dist.data.windows import AssetData, Scaler, Split
from b3dist.errors import InsufficientDataError
from b3dist.training.return_unit import ReturnTarget

Floats = npt.NDArray[np.float64]
ModelSource = Literal["own", "pooled"]


@dataclass(frozen=True, kw_only=True)
class InitialModel:
    """A trained model that another training starts from."""

    state: Mapping[str, Tensor]
    """Keys of the plain state_dict."""
    model_sha256: str
    origin: str
    """What it comes from, in words: a run or release and its ticker there."""
    config: Config
    scaler: Scaler
    return_target: ReturnTarget
    anchor: date | None
    """Its price basis; None: that of whatever asset it is used for."""
    selectable_from: date
    """First session of its validation part: it was trained on what lies before."""
    testable_from: date
    """First session of its test part: it was trained or selected on what lies before."""
    trained_until: date
    """The newest session its weights were trained on, by whatever models it began from."""
    source: ModelSource = "own"
    """Whether it is the asset's own model, or the pooled one with the asset's scales."""

    @classmethod
    def of_facts(
        cls,
        facts: Mapping[str, Any],
        *,
        state: Mapping[str, Tensor],
        anchor: str | None,
        model_sha256: str,
        origin: str,
        scaler: Scaler,
        return_target: ReturnTarget,
        trained_until: date,
    ) -> Self:
        """The model that an asset's facts (bundle.json, or its entry in a release's manifest) describe."""
        config = Config.from_dict(facts["config"])
        splits, cut = facts["splits"], (config.data.validation_from, config.data.test_from)
        selectable_from, testable_from = (
            day or date.fromisoformat(splits[name]["first"]) for day, name in zip(cut, ("val", "test"), strict=True)
        )
        begun_from = facts.get("initial_model")
        if begun_from:  # what that has seen, this one has seen too, also under an earlier cut of its own
            selectable_from = max(selectable_from, date.fromisoformat(begun_from["selectable_from"]))
            testable_from = max(testable_from, date.fromisoformat(begun_from["testable_from"]))
        return cls(
            state=state,
            model_sha256=model_sha256,
            origin=origin,
            config=config,
            scaler=scaler,
            return_target=return_target,
            anchor=date.fromisoformat(anchor) if anchor else None,
            selectable_from=selectable_from,
            testable_from=testable_from,
            trained_until=trained_until,
            source=facts.get("source", "own"),
        )

    def describe(self) -> dict[str, str]:
        """What bundle.json keeps of it."""
        return {
            "origin": self.origin,
            "model_sha256": self.model_sha256,
            "selectable_from": str(self.selectable_from),
            "testable_from": str(self.testable_from),
            "trained_until": str(self.trained_until),
            "source": self.source,
        }


InitialModels = Callable[[str], InitialModel | None]
"""An asset's start by its ticker; None: from scratch."""


def without_seen_windows(data: AssetData, initial: InitialModel) -> AssetData:
    """The asset without validation windows that the initial model trained on, and test windows that it has seen at all.

    Raises:
        InsufficientDataError: none is left.
    """
    val = _ending_from(data, data.val, initial.selectable_from)
    test = _ending_from(data, data.test, initial.testable_from)
    if not (len(val) and len(test)):
        raise InsufficientDataError(
            f"{data.ticker} has no window to be judged by that the initial model ({initial.origin}) has not seen: its"
            f" validation part begins {initial.selectable_from}, its test part {initial.testable_from}",
            hint="use more history",
        )
    seen = len(data.val) + len(data.test) - len(val) - len(test)
    return dataclasses.replace(data, val=val, test=test, dropped={**data.dropped, "seen_by_initial_model": seen})


def starting_state(
    initial: InitialModel, data: AssetData, return_target: ReturnTarget, *, basis: float
) -> dict[str, Tensor]:
    """Weights that predict with this asset's scales what the initial model predicts with its own.

    Args:
        initial: where from.
        data: the asset, with its own scaler.
        return_target: the asset's own.
        basis: a price at the initial model's anchor / the same price at the asset's anchor.
    """
    exponents = np.array([BASIS_EXPONENTS.get(name, 0) for name in data.feature_names])
    factor = np.power(basis, exponents)  # a feature at the initial model's basis / the same at the asset's
    scale, mean = initial.scaler.scale / factor, initial.scaler.mean / factor
    state = {name: tensor.to(torch.float64).clone() for name, tensor in initial.state.items()}
    weight = state["lstm.weight_ih_l0"]
    state["lstm.bias_ih_l0"] += weight @ torch.from_numpy((data.scaler.mean - mean) / scale)
    state["lstm.weight_ih_l0"] = weight * torch.from_numpy(data.scaler.scale / scale)
    ratio = initial.return_target.scale / return_target.scale
    state["return_head.weight"] *= ratio
    state["return_head.bias"] *= ratio
    state["return_head.bias"] += (initial.return_target.mean - return_target.mean) / return_target.scale
    return {name: tensor.to(torch.float32) for name, tensor in state.items()}


def describe_weights(initial: InitialModel | None, *, best_epoch: int, anchor: date) -> dict[str, str]:
    """What bundle.json says of kept weights: whose they are, and the newest session they were trained on.

    Weights that no epoch improved on are the initial model's still, in other scales.

    Args:
        initial: where the training began; None: from scratch.
        best_epoch: the kept epoch; 0 is the start.
        anchor: the training part's last session.
    """
    if initial is None:
        return {"source": "own", "trained_until": str(anchor)}
    if best_epoch == 0:
        return {"source": initial.source, "trained_until": str(initial.trained_until)}
    return {"source": "own", "trained_until": str(max(anchor, initial.trained_until))}


def basis_change(lake: Lake, data: AssetData, initial: InitialModel) -> float:
    """A price at the initial model's anchor / the same price at the asset's anchor: share events between the two."""
    if initial.anchor is None or "close" not in FEATURE_NAMES[initial.config.data.feature_set]:
        return 1.0
    bars = lake.bars(data.ticker, ["session", "adjustment"])
    sessions = bars["session"].to_numpy().astype("datetime64[D]")
    adjustment: Floats = bars["adjustment"].to_numpy().astype(np.float64)
    before, now = (
        adjustment[int(np.searchsorted(sessions, np.datetime64(day), side="right")) - 1]
        for day in (initial.anchor, data.anchor)
    )
    return float(now / before)


def _ending_from(data: AssetData, part: Split, first: date) -> Split:
    """The windows of a part whose last session is not before `first`."""
    kept = data.sessions[part.ends] >= np.datetime64(first)
    arrays = {field.name: getattr(part, field.name)[kept] for field in dataclasses.fields(part)}
    return Split(**arrays)
