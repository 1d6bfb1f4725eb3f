"""Atomic releases of a whole fleet: one folder that never changes, and aliases that move in one step."""

from b3dist.release.build import create_release
from b3dist.release.released import ModelGroup, Release, ReleasedAsset, ReleasedModel
from b3dist.release.store import ReleaseInfo, ReleaseStore

__all__ = [
    "ModelGroup",
    "Release",
    "ReleaseInfo",
    "ReleaseStore",
    "ReleasedAsset",
    "ReleasedModel",
    "create_release",
]
