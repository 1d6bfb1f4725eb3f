"""After the search: finalists under fresh seeds, the winner on held-out assets, and choices per asset."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from b3dist.config import Config
from b3dist.distributed.ledger import Ledger
from b3dist.distributed.sweep.evaluations import Evaluations, Job, run_jobs, with_seed
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.outcome import AssetChoice, Finalist, Outcome
from b3dist.tuning.finalists import baseline_of, choose_finalists, choose_winner
from b3dist.tuning.journal import TrialRecord
from b3dist.tuning.scores import AssetScore, CohortScore
from b3dist.tuning.shrinkage import choose_per_asset
from b3dist.tuning.study import derived_seed
from b3dist.tuning.verdict import Verdict, judge, keep_defaults


class Stages:
    """What follows the search; every training goes through `_train`, which does none twice.

    Args:
        sweep: its folder.
        records: every trial.
        evaluations: what is done already.
        ray: connected.
        start: begins a pack of trainings and returns the reference of their results.
        at_once: most packs waiting or running.
        pack_size: most trainings in a pack.
        ledger: where each result is recorded.
        on_progress: called with the stage, and how many of its trainings are done, of how many.
    """

    def __init__(
        self,
        sweep: SweepFolder,
        records: Sequence[TrialRecord],
        evaluations: Evaluations,
        *,
        ray: Any,
        start: Callable[[list[tuple[str, Config]]], Any],
        at_once: int,
        pack_size: int,
        ledger: Ledger,
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        self._sweep = sweep
        self._plan = sweep.plan
        self._records = {record.number: record for record in records}
        self._evaluations = evaluations
        self._ray = ray
        self._start = start
        self._at_once = at_once
        self._pack_size = pack_size
        self._ledger = ledger
        self._on_progress = on_progress
        base = sweep.config.seed
        # Not the search's own seed: under it the best trial is also the luckiest.
        self._seeds = [derived_seed("finalist", base, index) for index in range(sweep.plan.seeds)]

    def run(self) -> Outcome:
        """From the trials to the verdict."""
        baseline = baseline_of(list(self._records.values()))
        if baseline is None:
            tried = [one for one in self._records.values() if one.is_baseline and not one.was_abandoned]
            why = tried[0].attributes.get("error", "unknown") if tried else "it was never run"
            return Outcome(
                winner=None, verdict=_kept(f"trial 0, the configuration started from, failed ({why}): nothing to beat")
            )
        chosen = choose_finalists(
            list(self._records.values()), most=self._plan.finalists, two_objectives=self._plan.two_objectives
        )
        winner, finalists, means = self._run_finalists(baseline, chosen)
        if winner is None:
            why = next(one.error for one in finalists if one.number == baseline.number)
            reason = f"trial {baseline.number}, the configuration started from, failed under a fresh seed ({why})"
            return Outcome(winner=None, verdict=_kept(f"{reason}: nothing to compare with"), finalists=finalists)
        verdict = self._judge_winner(baseline.number, winner, means)
        choices, asset_verdict = ([], None) if not self._plan.per_asset else self._choose_per_asset(baseline)
        return Outcome(
            winner=winner, verdict=verdict, finalists=finalists, choices=choices, asset_verdict=asset_verdict
        )

    def _run_finalists(
        self, baseline: TrialRecord, chosen: Sequence[TrialRecord]
    ) -> tuple[int | None, list[Finalist], Mapping[int, CohortScore]]:
        """The winner, None if the baseline has no score; all that were tried; and their mean scores."""
        jobs = {
            (record.number, seed): [self._job(record.number, seed, ticker) for ticker in self._plan.cohort]
            for seed in self._seeds
            for record in (baseline, *chosen)
        }
        self._train("finalists", [job for group in jobs.values() for job in group])
        scores: dict[int, list[CohortScore]] = {}
        finalists = []
        for record in (baseline, *chosen):
            groups = [jobs[record.number, seed] for seed in self._seeds]
            error = self._first_error([job for group in groups for job in group])
            if error is None:
                scores[record.number] = [CohortScore.pooled(self._scores(group, "val")) for group in groups]
            finalists.append(Finalist(number=record.number, seeds=scores.get(record.number, []), error=error))
        if baseline.number not in scores:
            return None, finalists, {}
        winner, means = choose_winner(scores, baseline=baseline.number, two_objectives=self._plan.two_objectives)
        return winner, finalists, means

    def _judge_winner(self, baseline: int, winner: int, means: Mapping[int, CohortScore]) -> Verdict:
        if winner == baseline:
            return keep_defaults(
                means, baseline=baseline, num_seeds=len(self._seeds), two_objectives=self._plan.two_objectives
            )
        trials = dict.fromkeys(self._plan.held_out, winner)
        return self._compare("held-out", trials, baseline, name=f"trial {winner}")

    def _choose_per_asset(self, baseline: TrialRecord) -> tuple[list[AssetChoice], Verdict | None]:
        """Each cohort asset's own parameters, and whether they beat trial 0 on those assets' test parts."""
        ended = [record for record in self._records.values() if record.state == "complete" and record.values]
        scores = {
            ticker: [AssetScore.from_dict(record.attributes["assets"][ticker]) for record in ended]
            for ticker in self._plan.cohort
        }
        variance = {ticker: self._seed_variance(baseline.number, ticker) for ticker in self._plan.cohort}
        own = choose_per_asset(scores, [(record.values or (0.0,))[0] for record in ended], variance)
        choices = [
            AssetChoice(ticker=ticker, number=ended[one.trial].number, share=one.share, noise=one.noise)
            for ticker, one in own.items()
        ]
        trials = {one.ticker: one.number for one in choices}
        verdict = self._compare("per-asset", trials, baseline.number, name="each asset's own")
        return choices, verdict

    def _seed_variance(self, number: int, ticker: str) -> float:
        """Variance over seeds of an asset's validation macro F1 under the baseline; 0 with a single seed."""
        scores = self._scores([self._job(number, seed, ticker) for seed in self._seeds], "val")
        return float(np.var([score.macro_f1 for score in scores], ddof=1)) if len(scores) > 1 else 0.0

    def _compare(self, stage: str, trials: Mapping[str, int], baseline: int, *, name: str) -> Verdict:
        """Each asset's trial against trial 0 on its test part, under all seeds."""
        own = {ticker: [self._job(number, seed, ticker) for seed in self._seeds] for ticker, number in trials.items()}
        other = {ticker: [self._job(baseline, seed, ticker) for seed in self._seeds] for ticker in trials}
        self._train(stage, [job for ticker in trials for job in (*own[ticker], *other[ticker])])
        judged = [ticker for ticker in trials if self._first_error(other[ticker]) is None]
        failed = [ticker for ticker in judged if self._first_error(own[ticker]) is not None]
        if failed:
            return _kept(f"the winner cannot train {', '.join(failed)}: keep the defaults")
        verdict = judge(
            [_summed(self._scores(own[ticker], "test")) for ticker in judged],
            [_summed(self._scores(other[ticker], "test")) for ticker in judged],
            seed=derived_seed("bootstrap", self._sweep.config.seed),
            two_objectives=self._plan.two_objectives,
            num_seeds=len(self._seeds),
            name=name,
        )
        untrained = [ticker for ticker in trials if ticker not in judged]
        if not untrained:
            return verdict
        why = self._first_error(other[untrained[0]])
        left_out = f"trial {baseline} itself cannot train {', '.join(untrained)} ({why}): nothing is compared there"
        return dataclasses.replace(verdict, warnings=[*verdict.warnings, left_out])

    def _first_error(self, jobs: Sequence[Job]) -> str | None:
        return next((error for job in jobs if (error := self._evaluations.error(job))), None)

    def _scores(self, jobs: Sequence[Job], part: str) -> list[AssetScore]:
        scores = [self._evaluations.score(job, part) for job in jobs]
        return [score for score in scores if score is not None]

    def _job(self, number: int, seed: int, ticker: str) -> Job:
        params = json.dumps(self._records[number].params, sort_keys=True)
        return Job(number=number, seed=seed, ticker=ticker, params=params)

    def _train(self, stage: str, jobs: Sequence[Job]) -> None:
        missing = self._evaluations.missing(jobs)
        total = len({job.key for job in jobs})
        done = total - len(missing)
        self._on_progress(stage, done, total)

        def start(pack: Sequence[Job]) -> Any:
            return self._start([(job.ticker, self._config_of(job)) for job in pack])

        def keep(job: Job, result: Mapping[str, Any]) -> None:
            nonlocal done
            self._ledger.append(
                "evaluated",
                stage=stage,
                number=job.number,
                params=job.params,
                seed=job.seed,
                ticker=job.ticker,
                result=result,
            )
            self._evaluations.add(job, result)
            done += 1
            self._on_progress(stage, done, total)

        # Every worker gets some, and none more than it can train at once.
        size = max(1, min(self._pack_size, -(-len(missing) // self._at_once)))
        packs = [missing[first : first + size] for first in range(0, len(missing), size)]
        run_jobs(self._ray, start, packs, at_once=self._at_once, on_result=keep)

    def _config_of(self, job: Job) -> Config:
        config = self._plan.space.apply(self._sweep.config, json.loads(job.params))
        return with_seed(config, job.seed)


def _summed(scores: Sequence[AssetScore]) -> AssetScore:
    """One asset under several seeds as one score."""
    return AssetScore(
        confusion=np.sum([score.confusion for score in scores], axis=0),
        squared_error=sum(score.squared_error for score in scores),
        naive_squared_error=sum(score.naive_squared_error for score in scores),
    )


def _kept(reason: str) -> Verdict:
    return Verdict(adopted=False, reason=reason)
