"""What a warm-started run's models started from, and whether training on made them better than they started."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from b3dist.distributed.fleet.initial import INIT_FROM
from b3dist.distributed.pooled.folder import MODEL_FOLDER
from b3dist.errors import RunError, describe_damage
from b3dist.run_folder import bundle_folders, read_run_config

if TYPE_CHECKING:  # a run that was started from nothing needs no arithmetic
    from b3dist.distributed.fleet.start_gains import Gain, Part, Scores

Origin = Literal["own", "pooled", "whole", "scratch"]
"""Which model an asset started from: its own earlier one; the pooled one, scaled for it; the pooled one as a whole, as
it has no bundle for it; none, as the source had none."""

_IN_WORDS: Final[Mapping[Origin, str]] = {
    "own": "from their own models",
    "pooled": "from the pooled model",
    "whole": "from the pooled model as a whole",
    "scratch": "from scratch, as it has none for them",
}
_PARTS: "Final[tuple[Part, ...]]" = ("val", "test")


@dataclass(frozen=True, kw_only=True)
class AssetStart:
    """Where one trained asset started, and what became of it."""

    ticker: str
    origin: Origin
    unchanged: bool
    """No epoch was better on the validation part, so the start was kept as it came."""
    scores: "Mapping[Part, Scores]"
    """By part, val and test; empty from scratch, and of bundles from before starts were judged."""

    def to_dict(self) -> dict[str, Any]:
        """What summary.json says of the asset; undefined scores are None."""
        return {
            "origin": self.origin,
            "unchanged": self.unchanged,
            **{name: _told(self.scores[name]) if name in self.scores else None for name in _PARTS},
        }


@dataclass(frozen=True, kw_only=True)
class Starts:
    """All trained assets of a warm-started run."""

    source: str
    """`run ID` or `release ID`."""
    assets: Sequence[AssetStart]
    """In alphabetical order."""
    gains: "Sequence[Gain]"
    """What training on was worth over all compared assets; none where no asset has its start's scores."""

    @classmethod
    def of_run(cls, path: Path) -> "Starts | None":
        """Read from the bundles of a run; None unless it was started from something.

        Raises:
            RunError: config.json or a bundle is damaged.
        """
        content = read_run_config(path) or {}
        try:
            source = content.get("options", {}).get(INIT_FROM)
            if source is None:
                return None
            name, seed = f"{source['kind']} {Path(source['path']).name}", int(content["config"]["seed"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = describe_damage(error)
            raise RunError(f"{path / 'config.json'} is damaged: {what}", hint="restore it") from error
        from b3dist.distributed.fleet.start_gains import gains_of

        assets = [_read(folder) for folder in bundle_folders(path)]
        return cls(source=name, assets=assets, gains=gains_of([asset.scores for asset in assets], seed=seed))

    @property
    def counts(self) -> dict[Origin, int]:
        """Trained assets by where they started."""
        found = Counter(asset.origin for asset in self.assets)
        return {origin: found[origin] for origin in get_args(Origin)}

    @property
    def unchanged(self) -> int:
        """Assets that kept the start as it came."""
        return sum(asset.unchanged for asset in self.assets)

    @property
    def compared(self) -> int:
        """Assets whose start and kept weights were judged on the same windows."""
        return sum(bool(asset.scores) for asset in self.assets)

    def to_dict(self) -> dict[str, Any]:
        """What summary.json says of all assets together."""
        return {
            "source": self.source,
            **{str(origin): count for origin, count in self.counts.items()},
            "unchanged": self.unchanged,
            "compared": self.compared,
            **{part: {one.score: one.to_dict() for one in self.gains if one.part == part} or None for part in _PARTS},
        }

    def in_words(self) -> str:
        """One sentence on where from."""
        told = ", ".join(f"{count} {_IN_WORDS[origin]}" for origin, count in self.counts.items() if count)
        kept = f"{self.unchanged} of {len(self.assets)} kept the start as it came (epoch 0)"
        return f"started from {self.source}: {told or 'nothing is trained yet'}; {kept}"

    def gains_in_words(self) -> str | None:
        """One sentence on what training on was worth on the test parts; None where nothing is compared."""
        told = [one.in_words() for one in self.gains if one.part == "test"]
        return f"test parts of {self.compared} assets, start to kept: {'; '.join(told)}" if told else None


def describe_starts(path: Path) -> tuple[dict[str, Any] | None, Mapping[str, dict[str, Any]]]:
    """What summary.json says of a run's starts: of all assets together, and by ticker; None unless it had any.

    What a damaged bundle makes impossible is said instead: it is no failure of a run that trained its assets.
    """
    try:
        starts = Starts.of_run(path)
    except RunError as error:
        return {"problem": error.message}, {}
    if starts is None:
        return None, {}
    return starts.to_dict(), {asset.ticker: asset.to_dict() for asset in starts.assets}


def _read(folder: Path) -> AssetStart:
    try:
        facts, metrics = (_json(folder / name) for name in ("bundle.json", "metrics.json"))
        origin = _origin(facts.get("initial_model"))
        return AssetStart(
            ticker=folder.name,
            origin=origin,
            unchanged=origin != "scratch" and metrics["best_epoch"] == 0,
            scores={name: _scores(metrics, name) for name in _PARTS if "start" in metrics},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{folder} is no complete bundle: {describe_damage(error)}", hint="remove it and resume the run"
        ) from error


def _json(path: Path) -> Any:
    # What is no number (JSON knows no NaN, Python's reader does) cannot be a score.
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _word: None)


def _origin(initial: Mapping[str, Any] | None) -> Origin:
    if initial is None:
        return "scratch"
    if initial["origin"].rpartition(", ")[2] == MODEL_FOLDER:
        return "whole"
    return "pooled" if initial.get("source") == "pooled" else "own"


def _scores(metrics: Mapping[str, Any], part: "Part") -> "Scores":
    from b3dist.distributed.fleet.start_gains import Scores
    from b3dist.tuning.scores import AssetScore

    kept, start = metrics[part], metrics["start"][part]
    if start["num_windows"] != kept["num_windows"]:
        raise ValueError(f"start and kept weights were judged on other windows of the {part} part")
    persistence = kept["baselines"]["persistence"]
    return Scores(*(AssetScore.of_metrics(one, persistence) for one in (start, kept)))


def _told(scores: "Scores") -> dict[str, dict[str, float | None]]:
    return {name: {"macro_f1": one.macro_f1, "error_ratio": one.error_ratio} for name, one in scores._asdict().items()}
