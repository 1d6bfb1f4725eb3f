"""A release in memory: every asset's model, its weights side by side with those of the same shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from b3dist.config import DataConfig, ModelConfig
from b3dist.release.seal import CARD, PREDICTIONS

if TYPE_CHECKING:  # seconds to import, and who lists releases needs no weights
    from torch import Tensor

    from b3dist.data.windows import Scaler
    from b3dist.training.return_unit import ReturnTarget

Source = Literal["own", "pooled", "naive"]


@dataclass(frozen=True, kw_only=True)
class ModelGroup:
    """Models of one shape that see the same kind of window."""

    data: DataConfig
    model: ModelConfig
    feature_names: tuple[str, ...]
    weights: "dict[str, Tensor]"
    """Keys of the plain state_dict; each tensor (K, *shape), row k the model of slot k."""


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """One model of a release: where its weights lie, and what its inputs and outputs mean."""

    group: int
    """Index into the release's groups."""
    slot: int
    """Row of the group's weights."""
    model_sha256: str
    """Of the plain state_dict as model.pt holds it."""
    anchor: date
    """Session whose price basis the model was trained on."""
    trained_until: date | None
    """The newest session its weights were trained on, by whatever models they began from; None: on nothing."""
    scaler: "Scaler"
    return_target: "ReturnTarget"


@dataclass(frozen=True, kw_only=True)
class ReleasedAsset:
    """One asset of a release."""

    ticker: str
    served: ReleasedModel
    """What answers requests; in a refitted release trained on all rows."""
    evaluated: ReleasedModel
    """What metrics and predictions are of; the same object as `served` where the asset was not refitted."""
    run_id: str
    metrics: Mapping[str, Any]
    """metrics.json, of the evaluated model."""
    label_set: str
    carried_over: bool
    """The new run gave no model of this asset, so it keeps the one of the release before."""
    source: Source
    facts: Mapping[str, Any]
    """The asset's whole entry in manifest.json."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """An opened release: every file of it has the bytes that were released."""

    release_id: str
    path: Path
    manifest: dict[str, Any]
    manifest_sha256: str
    """Names the release's content: the manifest holds the hashes of all other files."""
    assets: Mapping[str, ReleasedAsset]
    """By ticker, in alphabetical order."""
    groups: tuple[ModelGroup, ...]

    def state(self, model: ReleasedModel) -> "dict[str, Tensor]":
        """The plain state_dict of one model, bit for bit as it was trained."""
        return {name: stack[model.slot].clone() for name, stack in self.groups[model.group].weights.items()}

    def predictions(self, ticker: str | None = None) -> pa.Table:
        """predictions.parquet of all assets or of one: `ticker`, then a bundle's columns; of the evaluated models."""
        filters = None if ticker is None else [("ticker", "=", ticker)]
        # Not pq.read_table on the path alone: it would look for partitions in the folders above.
        return pq.read_table(self.path / PREDICTIONS, filters=filters, partitioning=None)

    @property
    def card(self) -> str:
        """The release's model card, Markdown."""
        return (self.path / CARD).read_text(encoding="utf-8")
