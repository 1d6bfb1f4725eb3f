"""What a warm-started run's models started from, and how many of them are still what they started as."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple, Self

from b3dist.distributed.initial import MODEL_FOLDER, OPTION
from b3dist.errors import RunError
from b3dist.run_folder import read_run_config


class Starts(NamedTuple):
    """Counts of trained assets."""

    source: str
    """`run ID` or `release ID`."""
    own: int
    """Started from the source's model for that asset."""
    whole: int
    """Started from a pooled model as a whole, as it has no bundle for them."""
    scratch: int
    """The source had no model for them."""
    kept: int
    """Kept the start as it came: no epoch was better on the validation part."""

    @classmethod
    def of_run(cls, path: Path) -> Self | None:
        """Read from the bundles of a run; None unless it was started from something.

        Raises:
            RunError: config.json or a bundle is damaged.
        """
        source = (read_run_config(path) or {}).get("options", {}).get(OPTION)
        if source is None:
            return None
        origins = Counter[str]()
        kept = 0
        for folder in sorted((path / "assets").glob("[!.]*/")):
            origin, best_epoch = _start(folder)
            origins["scratch" if origin is None else "whole" if origin == MODEL_FOLDER else "own"] += 1
            kept += best_epoch == 0
        name = f"{source['kind']} {Path(source['path']).name}"
        return cls(name, own=origins["own"], whole=origins["whole"], scratch=origins["scratch"], kept=kept)

    def in_words(self) -> str:
        """One sentence."""
        groups = [
            (self.own, "from its models for them"),
            (self.whole, "from the pooled model as a whole"),
            (self.scratch, "from scratch, as it has none for them"),
        ]
        told = ", ".join(f"{count} {how}" for count, how in groups if count)
        total = self.own + self.whole + self.scratch
        return f"started from {self.source}: {told}; {self.kept} of {total} kept the start as it came (epoch 0)"


def _start(folder: Path) -> tuple[str | None, int]:
    """Which model of the source an asset started from, if any, and the epoch it kept."""
    try:
        facts = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        initial = facts.get("initial_model")
        return None if initial is None else initial["origin"].rpartition(", ")[2], metrics["best_epoch"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder} is no complete bundle: {error!r}", hint="remove it and resume the run") from error
