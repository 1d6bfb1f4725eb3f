"""What a reader must know before believing a sweep: on how few events it rests, and what was cut short."""

from collections.abc import Sequence
from typing import Any

from b3dist.config import Config
from b3dist.data.schema import ACTIONS
from b3dist.distributed.sweep.folder import SweepPlan
from b3dist.tuning.evidence import FEWEST_ASSETS
from b3dist.tuning.finalists import baseline_of
from b3dist.tuning.journal import TrialRecord
from b3dist.tuning.scores import AssetScore, CohortScore, constant_scores, most_frequent_action, support_of
from b3dist.tuning.standings import warn_of_rare
from b3dist.tuning.study import first_rung, sure_epochs, worth_halving

_CHANGES_WINDOWS = {
    "data.lookback": "windows (the parts' borders move)",
    "data.volatility_multiple": "labels (what counts as a move changes)",
}


def cautions_before(plan: SweepPlan, config: Config) -> list[str]:
    """Sentences about what is asked for, to be read before waiting for it."""
    return [
        one
        for one in (_rare(plan.support), _short(plan, config), _halved(plan, config), _few(plan), *_moving(plan))
        if one
    ]


def _rare(support: Sequence[int] | None) -> str | None:
    return None if support is None else warn_of_rare(support, where="the cohort's validation parts")


def _short(plan: SweepPlan, config: Config) -> str | None:
    epochs, usual = config.training.epochs, plan.recipe_epochs
    if usual is None or epochs >= usual:
        return None
    return (
        f"every trial trains {epochs} of the recipe's {usual} epochs, trial 0 too, which may make it easy to beat; "
        f"best.yaml says {epochs} as well, and a fleet with it trains no longer"
    )


def _halved(plan: SweepPlan, config: Config) -> str | None:
    epochs = sure_epochs(config)
    if not plan.halving or worth_halving(epochs, plan.trials):
        return None
    return (
        f"with {plan.trials} trials of {epochs} epochs two in three are stopped after epoch {first_rung(epochs)}, "
        "mostly by luck; --no-halving trains each to its end"
    )


def _few(plan: SweepPlan) -> str | None:
    if not plan.per_asset or len(plan.cohort) >= FEWEST_ASSETS:
        return None
    return (
        f"--per-asset with {len(plan.cohort)} assets, at least {FEWEST_ASSETS} are needed to adopt choices per asset: "
        "whatever is found, no assets/TICKER.yaml will be written"
    )


def _moving(plan: SweepPlan) -> list[str]:
    return [
        f"{name} is searched: trials with another value are judged on other {what}, so their scores answer different "
        "questions, and the best may only have had the easiest one"
        for name, what in _CHANGES_WINDOWS.items()
        if name in plan.space.names
    ]


def describe_cohort(records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """What every trial's macro F1 rests on: the cohort's validation windows by action, and what costs nothing there.

    None before trial 0 has ended.
    """
    baseline = baseline_of(records)
    if baseline is None or not baseline.attributes.get("assets"):
        return None
    scores = [AssetScore.from_dict(one) for one in baseline.attributes["assets"].values()]
    return {
        "support": {name: int(number) for name, number in zip(ACTIONS, support_of(scores), strict=True)},
        "constant_action": ACTIONS[most_frequent_action(scores)],
        "constant_macro_f1": CohortScore.pooled(constant_scores(scores)).macro_f1,
    }


def cautions_of(records: Sequence[TrialRecord], config: Config) -> list[str]:
    """Sentences about the trials that have ended."""
    cohort = describe_cohort(records)
    cautions = [_rare(list(cohort["support"].values()) if cohort else None), _rising(records, config.training.epochs)]
    return [one for one in cautions if one]


def _rising(records: Sequence[TrialRecord], epochs: int) -> str | None:
    """Whether training ended before the scores did: such trials are ranked by how fast they begin."""
    ended = [one for one in records if one.state == "complete" and max(one.curve, default=0) == epochs > 1]
    rising = [one.number for one in ended if one.curve[epochs] > one.curve.get(epochs - 1, one.curve[epochs])]
    if not rising or 2 * len(rising) < len(ended):
        return None
    return (
        f"{len(rising)} of {len(ended)} complete trials still got better in the last of {epochs} epochs: more epochs "
        "may rank them otherwise"
    )
