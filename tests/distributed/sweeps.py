"""A sweep's folder without Ray: its search run on an objective that costs nothing, its later stages written by hand."""

import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.ledger import Ledger
from b3dist.distributed.sweep.drive import search_settings
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.outcome import AssetChoice, Finalist, Outcome, write_outcome
from b3dist.distributed.sweep.plan import SweepRequest, new_sweep
from b3dist.tuning.scores import AssetScore, CohortScore
from b3dist.tuning.study import Search
from b3dist.tuning.verdict import judge

BASE = Config().with_overrides(["data.min_sessions=300", "training.epochs=9", "data.label_set=forward_return"])


def searched(lake: Path, runs: Path, *, trials: int = 9, base: Config = BASE, **request: object) -> SweepFolder:
    """A sweep whose search has ended: higher dropout is better, trial 3 failed, trial 5's driver was killed.

    It is a copy: dozens of tests want the same one, whose every step waits for the disk.
    """
    asked = json.dumps([trials, base.to_dict(), request], sort_keys=True)
    kept = lake.parent / "searches" / hashlib.sha256(asked.encode()).hexdigest()
    if not kept.is_dir():
        _search(lake, kept, base, SweepRequest(trials=trials, cohort_size=3, **request))  # type: ignore[arg-type]
    (sweep,) = kept.iterdir()
    shutil.copytree(sweep, runs / sweep.name)
    return SweepFolder.open(runs, sweep.name)


def _search(lake: Path, runs: Path, base: Config, request: SweepRequest) -> None:
    sweep = new_sweep(Lake(lake), runs, base, request)
    ledger = Ledger(sweep.run.ledger)
    ledger.append("opened")
    search = Search(search_settings(sweep), sweep.journal)
    while (suggestion := search.ask()) is not None:
        if suggestion.number == 5:
            search = Search(search_settings(sweep), sweep.journal)
            ledger.append("trial", number=5, state="running")
            ledger.append("opened")
            continue
        score = CohortScore(macro_f1=suggestion.params["model.dropout"], error_ratio=1.1)
        assets = {ticker: scored(suggestion.params["model.dropout"]).to_dict() for ticker in sweep.plan.cohort}
        attributes = {"epochs": 1, "seconds": 0.5, "error_ratio": 1.1, "macro_f1": score.macro_f1, "assets": assets}
        if suggestion.number == 3:
            search.fail(3, "SIMA3 diverged at epoch 1 <b>")
        else:
            search.report(suggestion.number, 1, score)
            search.tell(suggestion.number, score, pruned=False, attributes=attributes)
        ledger.append("trial", number=suggestion.number, state="failed" if suggestion.number == 3 else "complete")
    ledger.close()


def begun(lake: Path, runs: Path) -> SweepFolder:
    """A sweep of 9 trials: 0 and 1 ended, 2 has done an epoch."""
    sweep = new_sweep(Lake(lake), runs, BASE, SweepRequest(trials=9, cohort_size=3))
    search = Search(search_settings(sweep), sweep.journal)
    for number in range(3):
        suggestion = search.ask()
        assert suggestion is not None
        score = CohortScore(macro_f1=suggestion.params["model.dropout"], error_ratio=1.1)
        search.report(number, 1, score)
        if number < 2:
            search.tell(number, score, pruned=False, attributes={"epochs": 3, "error_ratio": 1.1})
    ledger = Ledger(sweep.run.ledger)
    for number, state in enumerate(["complete", "complete", "running"]):
        ledger.append("trial", number=number, state=state)
    ledger.close()
    return sweep


def scored(share: float) -> AssetScore:
    """An asset that finds this share of its buys."""
    found = round(40 * share)
    return AssetScore(
        confusion=np.array([[found, 40 - found, 0], [20, 20, 0], [0, 0, 300]]),
        squared_error=1.21,
        naive_squared_error=1.0,
    )


def lengthened(sweep: SweepFolder, *, trials: int = 12) -> SweepFolder:
    """The same with more trials planned than have begun."""
    plan = replace(sweep.plan, trials=trials)
    return SweepFolder(sweep.run.replace_options(plan.to_dict()), plan)


def concluded(sweep: SweepFolder, *, adopted: bool, found: int = 28, out_of_time: bool = False) -> SweepFolder:
    """The same with finalists, a verdict, and choices per asset if it is that kind of sweep.

    Args:
        sweep: searched.
        adopted: whether the winner beats trial 0 on held-out assets.
        found: of 40 buys per held-out asset, those that an adopted winner finds; with 2 always holding is better.
        out_of_time: whether the search ended before the trials planned.
    """
    records = Search(search_settings(sweep), sweep.journal).records()
    best = max((one for one in records if one.values), key=lambda one: (one.values or (0.0,))[0])
    seeds = [CohortScore(macro_f1=0.6, error_ratio=1.01), CohortScore(macro_f1=0.5, error_ratio=0.99)]
    held_out = [_held_out(found if adopted else 1, 60)] * 9
    verdict = judge(
        held_out, [_held_out(1, 150)] * 9 if adopted else held_out, seed=1, two_objectives=sweep.plan.two_objectives
    )
    assert verdict.adopted is adopted
    choices = [AssetChoice(ticker=ticker, number=best.number, share=0.4, noise=0.03) for ticker in sweep.plan.cohort]
    outcome = Outcome(
        winner=best.number,
        verdict=verdict,
        finalists=[Finalist(number=0, seeds=seeds, error=None), Finalist(number=best.number, seeds=[], error="died")],
        choices=choices if sweep.plan.per_asset else [],
        asset_verdict=verdict if sweep.plan.per_asset else None,
    )
    summary = write_outcome(sweep, records, outcome, state="finished", started=time.time(), out_of_time=out_of_time)
    sweep.run.write_summary({**summary, "tracking": None})
    return sweep


def _held_out(found: int, wrong: int) -> AssetScore:
    return AssetScore(
        confusion=np.array([[found, 0, 40 - found], [0, 0, 0], [wrong, 0, 300 - wrong]]),
        squared_error=1.21,
        naive_squared_error=1.0,
    )


def aged(sweep: SweepFolder) -> SweepFolder:
    """A concluded sweep with the summary.json of a version that compared with trial 0 alone."""
    path = sweep.run.path / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    kept = ("adopted", "reason", "gain", "error_change", "constant_macro_f1")
    summary["verdict"] = {name: summary["verdict"][name] for name in kept}
    old = {name: value for name, value in summary.items() if name not in ("cohort", "warnings")}
    path.write_text(json.dumps(old), encoding="utf-8")
    return sweep
