"""What a sweep leaves behind: best.yaml, a configuration per asset and per trial worth having, summary.json."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from b3dist.config import Config
from b3dist.distributed.sweep.budget import describe_stop
from b3dist.distributed.sweep.cautions import cautions_before, cautions_of, describe_cohort
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.summary import read_sweep_summary
from b3dist.errors import RunError, StorageError
from b3dist.run_folder import SCHEMA_VERSION
from b3dist.tuning.finalists import pareto_front
from b3dist.tuning.journal import ERROR, TrialRecord
from b3dist.tuning.scores import CohortScore
from b3dist.tuning.verdict import Verdict

_LEFT_TO_THE_JOURNAL = ("assets",)


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A trial under fresh seeds, on the cohort's validation parts."""

    number: int
    seeds: Sequence[CohortScore]
    """One per seed; none if a training failed."""
    error: str | None


@dataclass(frozen=True, kw_only=True)
class AssetChoice:
    """The trial chosen for one asset, and how much its own evidence counted."""

    ticker: str
    number: int
    share: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the stages after the search ended."""

    winner: int | None
    """The finalist with the best mean; trial 0's number if none is better; None if trial 0 has no score to beat."""
    verdict: Verdict
    finalists: Sequence[Finalist] = ()
    choices: Sequence[AssetChoice] = ()
    asset_verdict: Verdict | None = None
    """Of the choices per asset together."""


def write_outcome(
    sweep: SweepFolder,
    records: Sequence[TrialRecord],
    outcome: Outcome | None,
    *,
    state: str,
    started: float,
    out_of_time: bool = False,
) -> dict[str, Any]:
    """Write the configurations to use, and return what summary.json is to hold.

    Args:
        sweep: its folder.
        records: every trial.
        outcome: of the stages after the search; None if they did not end, and nothing is written.
        state: finished or interrupted.
        started: when this invocation began, seconds since 1970.
        out_of_time: whether the search ended with trials left, as its time was up.

    Raises:
        StorageError: disk full or not writable.
    """
    best = None
    if outcome is not None:
        best = _best(sweep, records, outcome)
        heading = f"sweep {sweep.run.run_id}: {outcome.verdict.reason}"
        _write_config(sweep.best, sweep.plan.space.apply(sweep.config, best["params"]), heading)
        _write_choices(sweep, records, outcome)
        _write_trials(sweep, records, outcome)
    states = Counter(record.state for record in records if not record.was_abandoned)
    settled = sum(states[name] for name in ("complete", "pruned", "failed"))
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": sweep.run.run_id,
        "kind": sweep.run.settings.kind,
        "state": state,
        "stopped": describe_stop(settled, sweep.plan.trials) if out_of_time else None,
        "totals": {
            "trials": settled,
            **{name: states[name] for name in ("complete", "pruned", "failed")},
            "abandoned": sum(record.was_abandoned for record in records),
            "left": sweep.plan.trials - settled,
            "assets": len(sweep.plan.cohort),
            "held_out": len(sweep.plan.held_out),
            "windows_trained": sum(record.attributes.get("windows_trained", 0) for record in records),
            "trial_seconds": round(sum(record.attributes.get("seconds", 0.0) for record in records), 3),
            "wall_seconds": round(datetime.now(UTC).timestamp() - started, 3),
        },
        "best": best,
        "judged": outcome is not None and outcome.winner is not None,
        "verdict": outcome.verdict.to_dict() if outcome else None,
        "asset_verdict": outcome.asset_verdict.to_dict() if outcome and outcome.asset_verdict else None,
        "cohort": describe_cohort(records),
        # What was counted when the sweep began is counted again from trial 0.
        "warnings": list(
            dict.fromkeys([*cautions_before(sweep.plan, sweep.config), *cautions_of(records, sweep.config)])
        ),
        "finalists": [_describe_finalist(one) for one in outcome.finalists] if outcome else [],
        "choices": [vars(one) for one in outcome.choices] if outcome else [],
        "pareto_front": [record.number for record in pareto_front(records)] if sweep.plan.two_objectives else [],
        "trials": [describe_trial(record) for record in records],
    }


def finished_summary(sweep: SweepFolder) -> dict[str, Any] | None:
    """What summary.json holds if the sweep has come to its verdict; None if it has not, or if anything is missing."""
    try:
        summary = read_sweep_summary(sweep.run, sweep.plan)
    except RunError:
        return None  # damaged: written again, from what journal and ledger hold
    if summary is None or summary["state"] != "finished" or not sweep.best.is_file():
        return None
    return {"engine": "single", "judged": True, "stopped": None, **summary}  # which older versions did not write


def describe_trial(record: TrialRecord) -> dict[str, Any]:
    """A trial as summary.json and MLflow show it."""
    attributes = {name: value for name, value in record.attributes.items() if name not in _LEFT_TO_THE_JOURNAL}
    return {
        "number": record.number,
        "state": record.state,
        "params": record.params,
        "values": list(record.values) if record.values else None,
        **{name: attributes.get(name) for name in ("epochs", "seconds", "error_ratio", "source", ERROR)},
        "baseline": record.is_baseline,
        "abandoned": record.was_abandoned,
    }


def _best(sweep: SweepFolder, records: Sequence[TrialRecord], outcome: Outcome) -> dict[str, Any]:
    """The parameters to use: the winner's if adopted, else those the sweep started from."""
    by_number = {record.number: record for record in records}
    if outcome.verdict.adopted and outcome.winner is not None:
        record = by_number[outcome.winner]
        return {"params": record.params, "value": _value(record), "trial": record.number, "adopted": True}
    baseline = next((one for one in records if one.is_baseline and one.state == "complete"), None)
    return {
        "params": sweep.plan.space.start(sweep.config),
        "value": _value(baseline) if baseline else None,
        "trial": baseline.number if baseline else None,
        "adopted": False,
    }


def _value(record: TrialRecord) -> float | list[float] | None:
    values = list(record.values) if record.values else []
    return None if not values else values[0] if len(values) == 1 else values


def _describe_finalist(finalist: Finalist) -> dict[str, Any]:
    seeds = [vars(score) for score in finalist.seeds]
    count = len(seeds)
    mean = {name: sum(one[name] for one in seeds) / count for name in seeds[0]} if seeds else None
    return {"number": finalist.number, "seeds": seeds, "mean": mean, "error": finalist.error}


def _write_choices(sweep: SweepFolder, records: Sequence[TrialRecord], outcome: Outcome) -> None:
    """A configuration per asset, where the choices together beat trial 0."""
    if outcome.asset_verdict is None or not outcome.asset_verdict.adopted:
        return
    params = {record.number: record.params for record in records}
    for choice in outcome.choices:
        config = sweep.plan.space.apply(sweep.config, params[choice.number])
        heading = f"sweep {sweep.run.run_id}: {choice.ticker} uses trial {choice.number}"
        _write_config(sweep.run.assets / f"{choice.ticker}.yaml", config, heading)


def _write_trials(sweep: SweepFolder, records: Sequence[TrialRecord], outcome: Outcome) -> None:
    """A configuration for each trial that somebody may want instead: trial 0, the finalists, the Pareto front."""
    front = pareto_front(records) if sweep.plan.two_objectives else []
    wanted = {one.number for one in outcome.finalists} | {one.number for one in front}
    for record in records:
        if record.number in wanted or (record.is_baseline and not record.was_abandoned):
            scores = ", ".join(f"{value:.4f}" for value in record.values or ())
            heading = (
                f"sweep {sweep.run.run_id}: trial {record.number}, {record.state}, in the search {scores or 'none'}"
            )
            _write_config(sweep.recipe_of(record.number), sweep.plan.space.apply(sweep.config, record.params), heading)


def _write_config(path: Path, config: Config, heading: str) -> None:
    """The whole configuration as YAML: laid over any recipe it means the same."""
    aside = path.with_name(f".{path.name}.tmp")
    text = f"# {heading}\n" + yaml.safe_dump(config.to_dict(), sort_keys=False)
    try:
        path.parent.mkdir(exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", hint="free some space, then resume") from error
