"""Atomic releases of a whole fleet: one folder that never changes, and aliases that move in one step."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from b3dist.release.build import Refitting, create_release
    from b3dist.release.card import card_html
    from b3dist.release.promotion import Moved, promote, rollback
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

_MODULES = {
    "build": ("Refitting", "create_release"),
    "card": ("card_html",),
    "promotion": ("Moved", "promote", "rollback"),
    "released": ("ModelGroup", "Release", "ReleasedAsset", "ReleasedModel"),
    "store": ("ReleaseInfo", "ReleaseStore"),
}


def __getattr__(name: str) -> Any:
    """Import a name's module when it is first asked for: torch, which `build` needs, takes seconds."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
