"""A sweep's folder without Ray: its search run on an objective that costs nothing, its later stages written by hand."""

import time
from pathlib import Path

import numpy as np

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.ledger import Ledger
from b3dist.distributed.sweep.drive import search_settings
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.outcome import AssetChoice, Finalist, Outcome, write_outcome
from b3dist.distributed.sweep.plan import SweepRequest, new_sweep
from b3dist.tuning.evidence import Interval
from b3dist.tuning.finalists import Verdict
from b3dist.tuning.scores import AssetScore, CohortScore
from b3dist.tuning.study import Search

BASE = Config().with_overrides(["data.min_sessions=300", "training.epochs=9", "data.label_set=forward_return"])


def searched(lake: Path, runs: Path, *, trials: int = 9, base: Config = BASE, **request: object) -> SweepFolder:
    """A sweep whose search has ended: higher dropout is better, trial 3 failed, trial 5's driver was killed."""
    sweep = new_sweep(Lake(lake), runs, base, SweepRequest(trials=trials, cohort_size=3, **request))  # type: ignore[arg-type]
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
    return sweep


def scored(share: float) -> AssetScore:
    """An asset that finds this share of its buys."""
    found = round(40 * share)
    return AssetScore(
        confusion=np.array([[found, 40 - found, 0], [20, 20, 0], [0, 0, 300]]),
        squared_error=1.21,
        naive_squared_error=1.0,
    )


def concluded(sweep: SweepFolder, *, adopted: bool) -> SweepFolder:
    """The same with finalists, a verdict, and choices per asset if it is that kind of sweep."""
    records = Search(search_settings(sweep), sweep.journal).records()
    best = max((one for one in records if one.values), key=lambda one: (one.values or (0.0,))[0])
    seeds = [CohortScore(macro_f1=0.6, error_ratio=1.01), CohortScore(macro_f1=0.5, error_ratio=0.99)]
    gain = Interval(difference=0.1, low=0.02 if adopted else -0.02, high=0.2, level=0.95, num_assets=9)
    verdict = Verdict(adopted=adopted, reason="macro F1 +0.1000: it depends", gain=gain)
    choices = [AssetChoice(ticker=ticker, number=best.number, share=0.4, noise=0.03) for ticker in sweep.plan.cohort]
    outcome = Outcome(
        winner=best.number,
        verdict=verdict,
        finalists=[Finalist(number=0, seeds=seeds, error=None), Finalist(number=best.number, seeds=[], error="died")],
        choices=choices if sweep.plan.per_asset else [],
        asset_verdict=verdict if sweep.plan.per_asset else None,
    )
    summary = write_outcome(sweep, records, outcome, state="finished", started=time.time())
    sweep.run.write_summary({**summary, "tracking": None})
    return sweep
