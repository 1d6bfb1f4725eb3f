"""Atomic releases of a whole fleet: one folder that never changes, and aliases that move in one step."""

from b3dist.release.build import Refitting, create_release
from b3dist.release.card import card_html
from b3dist.release.promote import Moved, promote, rollback
from b3dist.release.released import ModelGroup, Release, ReleasedAsset, ReleasedModel
from b3dist.release.store import ReleaseInfo, ReleaseStore

__all__ = [
    "ModelGroup",
    "Moved",
    "Refitting",
    "Release",
    "ReleaseInfo",
    "ReleaseStore",
    "ReleasedAsset",
    "ReleasedModel",
    "card_html",
    "create_release",
    "promote",
    "rollback",
]
