"""What is to be served: the `user_config` of the deployment, the only part of it that changes while it runs."""

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from b3dist.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Served:
    """A release on a lake; a change of any field is taken over in place.

    Raises:
        ConfigError: a value that no endpoint can serve from.
    """

    releases: Path
    """Folder of all releases."""
    release: str
    """Release id, or an alias, which is resolved when it is taken over."""
    alias: str | None = None
    """The alias by which the user named the release, where `release` is the id it pointed to."""
    lake: Path
    lake_manifest_hash: str | None = None
    """sha256 of the lake's manifest when this was asked for: what makes new sessions a change."""
    which: Literal["served", "evaluated"] = "served"
    """Which of a refitted release's two sets of weights answers."""
    stale_after: int = 5
    """Exchange sessions after which an asset's last bar is called stale."""
    fallback: str | None = None
    """Release that a replica without any takes where `release` cannot be had: the last that was served well."""
    attempt: int = 0
    """Counts how often the same was asked for: what makes asking again a change."""

    def __post_init__(self) -> None:
        if not isinstance(self.release, str):
            raise ConfigError(f"release must be the text of an id or an alias, got {self.release!r}")
        if self.which not in ("served", "evaluated"):
            raise ConfigError(f"which must be served or evaluated, got {self.which!r}")
        if isinstance(self.stale_after, bool) or not isinstance(self.stale_after, int) or self.stale_after < 0:
            raise ConfigError(f"stale_after must be a whole number of sessions, 0 or more, got {self.stale_after!r}")

    @classmethod
    def from_user_config(cls, user_config: Mapping[str, Any]) -> Self:
        """The configuration in a deployment's `user_config`; `$NAME` in a path stands for an environment variable.

        Raises:
            ConfigError: a name is unknown or missing, a variable not set, or a value out of range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in user_config:
            if name not in names:
                nearest = difflib.get_close_matches(str(name), names, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else f"it knows {', '.join(names)}"
                raise ConfigError(f"user_config has no setting {name!r}", hint=hint)
        missing = [name for name in ("releases", "release", "lake") if not user_config.get(name)]
        if missing:
            raise ConfigError(f"user_config lacks {', '.join(missing)}")
        paths = {name: _expanded(name, str(user_config[name])) for name in ("releases", "lake")}
        return cls(**{**user_config, **paths})

    def to_user_config(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**dataclasses.asdict(self), "releases": str(self.releases), "lake": str(self.lake)}


def _expanded(name: str, text: str) -> Path:
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise ConfigError(
            f"user_config names the {name} folder {text!r}, and that variable is not set in the replica",
            hint="set it where Ray is started: every process of the cluster inherits it",
        )
    return Path(expanded)
