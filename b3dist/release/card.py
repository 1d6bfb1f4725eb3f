"""The model card of one release: what it is of, how good it was beside what costs nothing, and what it is not for."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markdown_it import MarkdownIt

from b3dist.release.parts import keeps_start

_TEMPLATES = Path(__file__).parent / "templates"
_SPLITS = ("val", "test")

Part = Mapping[str, Any]
"""`val` or `test` of metrics.json."""


class Measure(NamedTuple):
    """One line of the card's table."""

    name: str
    model: Callable[[Part], float | None]
    baseline: Callable[[Part], float | None]
    baseline_name: str


class Numbers(NamedTuple):
    """A measure over the assets of a release."""

    assets: int
    mean: float
    standard_error: float | None
    baseline: float | None
    """Mean of the baseline over the same assets."""
    lowest: tuple[float, str]
    """Value and ticker."""
    median: float
    highest: tuple[float, str]


def _error_ratio(part: Part) -> float | None:
    own, nothing = part["return"]["rmse"], part["baselines"]["persistence"]["return"]["rmse"]
    return own / nothing if own is not None and nothing else None


MEASURES = (
    Measure(
        "accuracy",
        lambda part: part["accuracy"],
        lambda part: part["baselines"]["majority"]["accuracy"],
        "always the most frequent action",
    ),
    Measure(
        "macro F1",
        lambda part: part["macro_f1"],
        lambda part: part["baselines"]["majority"]["macro_f1"],
        "always the most frequent action",
    ),
    Measure("return RMSE / persistence", _error_ratio, lambda _part: 1.0, "no change"),
    Measure("return IC", lambda part: part["return"]["ic"], lambda _part: 0.0, "no skill"),
    Measure("return rank IC", lambda part: part["return"]["rank_ic"], lambda _part: 0.0, "no skill"),
    Measure(
        "return R²",
        lambda part: part["return"]["r2"],
        lambda part: part["baselines"]["persistence"]["return"]["r2"],
        "no change",
    ),
    Measure(
        "price MAPE",
        lambda part: part["price"]["mape"],
        lambda part: part["baselines"]["persistence"]["price"]["mape"],
        "no change",
    ),
    Measure(
        "price R²",
        lambda part: part["price"]["r2"],
        lambda part: part["baselines"]["persistence"]["price"]["r2"],
        "no change",
    ),
)


def render_card(release_id: str, manifest: Mapping[str, Any]) -> str:
    """The card of a release, Markdown, from its manifest alone."""
    assets: Mapping[str, Mapping[str, Any]] = manifest["assets"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,  # noqa: S701  Markdown; `card_html` lets no HTML in it through
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = _number
    return environment.get_template("model_card.md.j2").render(
        release_id=release_id,
        manifest=manifest,
        assets=assets,
        carried={ticker: entry for ticker, entry in assets.items() if entry["carried_over"]},
        refitted=[ticker for ticker, entry in assets.items() if entry["refit"]],
        unimproved=[ticker for ticker, entry in assets.items() if keeps_start(entry)],
        runs=sorted({entry["run_id"] for entry in assets.values()}),
        seeds=sorted({entry["seed"] for entry in assets.values()}),
        period=_period(assets.values()),
        pooled=sum(entry["source"] == "pooled" for entry in assets.values()),
        warm=sum(entry["initial_model"] is not None and not keeps_start(entry) for entry in assets.values()),
        groups=[group for group in manifest["groups"] if group["role"] == "served"],
        scoreboard=[(measure, split, numbers(assets, measure, split)) for measure in MEASURES for split in _SPLITS],
        skill={
            split: [verdict for entry in assets.values() if (verdict := _skill(entry, split)) is not None]
            for split in _SPLITS
        },
        windows={split: sum(entry["metrics"][split]["num_windows"] for entry in assets.values()) for split in _SPLITS},
    )


def card_html(markdown: str) -> str:
    """A card as an HTML fragment; markup inside its text is shown, not obeyed."""
    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))


def numbers(assets: Mapping[str, Mapping[str, Any]], measure: Measure, split: str) -> Numbers | None:
    """A measure over all assets for which it is defined; None where it is defined for none."""
    values: list[tuple[float, str]] = []
    baselines: list[float] = []
    for ticker, entry in assets.items():
        part = entry["metrics"][split]
        if (value := measure.model(part)) is not None:
            values.append((value, ticker))
            if (baseline := measure.baseline(part)) is not None:
                baselines.append(baseline)
    if not values:
        return None
    plain = [value for value, _ in values]
    return Numbers(
        assets=len(plain),
        mean=statistics.fmean(plain),
        standard_error=statistics.stdev(plain) / math.sqrt(len(plain)) if len(plain) > 1 else None,
        baseline=statistics.fmean(baselines) if baselines else None,
        lowest=min(values),
        median=statistics.median(plain),
        highest=max(values),
    )


def _skill(entry: Mapping[str, Any], split: str) -> bool | None:
    """Whether an asset passes the skill gate; None where too few windows could tell."""
    skill = entry["metrics"][split]["skill"]
    return None if skill["p_value"] is None else bool(skill["beats_persistence"])


def _period(entries: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """First and last session that any window of a part ends on; dashes for a part that no asset has."""
    found = {}
    splits = [entry["splits"] for entry in entries]
    for name in ("train", *_SPLITS):
        parts = [split[name] for split in splits if split[name]["num_windows"]]
        first, last = (min(part["first"] for part in parts), max(part["last"] for part in parts)) if parts else "--"
        found[name] = (first, last)
    return found


def _number(value: float | None, decimals: int = 4) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
