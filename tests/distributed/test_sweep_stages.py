"""After the search: which trainings are asked for, and what is concluded from them; they are done in this process."""

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from b3dist.config import Config
from b3dist.distributed.ledger import Ledger, read_ledger
from b3dist.distributed.sweep.evaluations import Evaluations
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.outcome import Outcome, write_outcome
from b3dist.distributed.sweep.stages import Stages
from b3dist.distributed.sweep.trouble import TROUBLE
from b3dist.errors import RunError
from b3dist.tuning.journal import read_trials
from b3dist.tuning.scores import AssetScore
from tests.distributed.sweeps import BASE, searched

IN_PROCESS = SimpleNamespace(
    wait=lambda references, num_returns, **_: (references[:num_returns], references[num_returns:]),
    get=lambda reference: reference.value,
    exceptions=SimpleNamespace(RayError=RuntimeError),
)


class Bench:
    """Stands where the workers are: an asset's score follows from its settings, so that the conclusion is known."""

    def __init__(self, sweep: SweepFolder, *, gain: float, held_out: int = 8, pack_size: int = 1) -> None:
        self.sweep = SweepFolder(sweep.run, _with_assets(sweep, held_out))
        self.gain = gain
        self.pack_size = pack_size
        self.trouble: str | None = None
        self.kills: str | None = None
        self.baseline_diverges_on: Collection[str] = ()
        self.packs: list[int] = []
        self.started: list[tuple[str, int, float]] = []

    def conclude(self) -> Outcome:
        """Run the stages as a driver would, from what the ledger holds."""
        evaluations = Evaluations(read_ledger(self.sweep.run.ledger))
        ledger = Ledger(self.sweep.run.ledger)
        try:
            return Stages(
                self.sweep,
                read_trials(self.sweep.journal),
                evaluations,
                ray=IN_PROCESS,
                start=self._start,
                at_once=2,
                pack_size=self.pack_size,
                ledger=ledger,
                on_progress=lambda *_: None,
            ).run()
        finally:
            ledger.close()

    def _start(self, trainings: list[tuple[str, Config]]) -> Any:
        self.packs.append(len(trainings))
        if self.kills in [ticker for ticker, _ in trainings]:
            return _Done(RuntimeError("the worker died"))
        if len(trainings) > 1 and any(ticker == "BAD1" for ticker, _ in trainings):
            return _Done(RuntimeError("the worker died"))
        return _Done([self._evaluate(ticker, config) for ticker, config in trainings])

    def _evaluate(self, ticker: str, config: Config) -> dict[str, Any]:
        self.started.append((ticker, config.seed, config.model.dropout))
        if self.trouble is not None:
            return {TROUBLE: {"message": self.trouble, "hint": "put it back"}}
        if ticker in self.baseline_diverges_on and config.model.dropout == BASE.model.dropout:
            return {"error": f"{ticker} diverged at epoch 3"}
        if ticker == "BAD3" and config.model.dropout != BASE.model.dropout:
            return {"error": "BAD3 diverged at epoch 2"}
        better = config.model.dropout > BASE.model.dropout
        found = 10 + round(10 * self.gain) * better + config.seed % 3
        score = AssetScore(
            confusion=np.array([[found, 40 - found, 0], [20, 20, 0], [0, 0, 300]]),
            squared_error=1.0,
            naive_squared_error=1.0,
        ).to_dict()
        return {"val": score, "test": score}


class _Done:
    """A finished task."""

    def __init__(self, outcome: list[dict[str, Any]] | RuntimeError) -> None:
        self._outcome = outcome

    @property
    def value(self) -> list[dict[str, Any]]:
        """What it returned or raised."""
        if isinstance(self._outcome, RuntimeError):
            raise self._outcome
        return self._outcome


def _with_assets(sweep: SweepFolder, held_out: int) -> Any:
    from dataclasses import replace

    return replace(sweep.plan, held_out=[f"HLD{one}" for one in range(held_out)])


def test_a_winner_that_holds_up_is_adopted(small_lake: Path, tmp_path: Path) -> None:
    """The finalists are the best trials and trial 0; winner and trial 0 are compared on every held-out asset."""
    bench = Bench(searched(small_lake, tmp_path), gain=1.0)
    outcome = bench.conclude()
    assert outcome.verdict.adopted
    assert outcome.verdict.gain is not None
    assert outcome.verdict.gain.num_assets == 8
    assert len(outcome.finalists) == 4
    cohort, seeds = set(bench.sweep.plan.cohort), 3
    on_cohort = [job for job in bench.started if job[0] in cohort]
    assert len(on_cohort) == len(set(on_cohort)) == 4 * seeds * len(cohort)
    assert len(bench.started) - len(on_cohort) == 2 * seeds * 8


def test_a_lead_that_is_gone_under_fresh_seeds_keeps_the_defaults(small_lake: Path, tmp_path: Path) -> None:
    """Then no held-out asset is trained at all."""
    bench = Bench(searched(small_lake, tmp_path), gain=-0.5)
    outcome = bench.conclude()
    assert not outcome.verdict.adopted
    assert "no trial beats trial 0 over 3 fresh seeds" in outcome.verdict.reason
    assert not [job for job in bench.started if job[0].startswith("HLD")]


def test_a_second_driver_trains_nothing_again_and_concludes_the_same(small_lake: Path, tmp_path: Path) -> None:
    """Also if the first one was stopped half-way: what the ledger holds is used."""
    bench = Bench(searched(small_lake, tmp_path), gain=1.0)
    first = bench.conclude()
    lines = bench.sweep.run.ledger.read_bytes().splitlines(keepends=True)
    bench.started.clear()
    assert bench.conclude() == first
    assert bench.started == []
    bench.sweep.run.ledger.write_bytes(b"".join(lines[:-20]))
    assert bench.conclude() == first
    assert len(bench.started) == 20


def test_packs_of_evaluations_conclude_the_same(small_lake: Path, tmp_path: Path) -> None:
    """Every worker gets some; a pack that dies is tried asset by asset, and nothing is trained twice otherwise."""
    alone = Bench(searched(small_lake, tmp_path / "alone"), gain=1.0)
    packed = Bench(searched(small_lake, tmp_path / "packed"), gain=1.0, pack_size=20)
    for bench in (alone, packed):
        bench.sweep.plan.held_out.append("BAD1")  # type: ignore[attr-defined]
    assert packed.conclude() == alone.conclude()
    assert sorted(packed.started) == sorted(alone.started)
    finalists = packed.packs[:2]
    assert finalists == [18, 18]
    assert 20 in packed.packs[2:]
    assert 1 in packed.packs[2:]


def test_a_winner_that_cannot_train_an_asset_is_not_adopted(small_lake: Path, tmp_path: Path) -> None:
    """However good it is on the others; the asset is named."""
    bench = Bench(searched(small_lake, tmp_path), gain=1.0)
    bench.sweep.plan.held_out.append("BAD3")  # type: ignore[attr-defined]
    verdict = bench.conclude().verdict
    assert not verdict.adopted
    assert "cannot train BAD3" in verdict.reason


def test_trouble_with_the_lake_is_no_result(small_lake: Path, tmp_path: Path) -> None:
    """The sweep stops without a word in its ledger, and concludes once the trouble is over."""
    bench = Bench(searched(small_lake, tmp_path), gain=1.0)
    before = bench.sweep.run.ledger.read_bytes()
    bench.trouble = "the lake was changed"
    with pytest.raises(RunError, match="the lake was changed"):
        bench.conclude()
    assert bench.sweep.run.ledger.read_bytes() == before
    bench.trouble = None
    assert bench.conclude().verdict.adopted


@pytest.mark.parametrize("pack_size", [1, 20])
def test_workers_that_die_are_no_result(small_lake: Path, tmp_path: Path, pack_size: int) -> None:
    """All else is done first; a second driver trains what is missing alone, and concludes."""
    bench = Bench(searched(small_lake, tmp_path), gain=1.0, pack_size=pack_size)
    bench.kills = "HLD3"
    with pytest.raises(RunError, match=r"HLD3 died again and again.*RuntimeError"):
        bench.conclude()
    evaluated = [event for event in read_ledger(bench.sweep.run.ledger) if event["event"] == "evaluated"]
    assert len([one for one in evaluated if one["ticker"].startswith("HLD")]) == 7 * 2 * 3
    assert not [one for one in evaluated if "error" in one["result"]]
    bench.kills = None
    bench.started.clear()
    assert bench.conclude().verdict.adopted
    assert {ticker for ticker, _, _ in bench.started} == {"HLD3"}


def test_starting_values_that_fail_under_fresh_seeds_leave_nothing_to_compare_with(
    small_lake: Path, tmp_path: Path
) -> None:
    """Not: that no trial beats them."""
    bench = Bench(searched(small_lake, tmp_path), gain=1.0)
    bench.baseline_diverges_on = bench.sweep.plan.cohort
    outcome = bench.conclude()
    assert outcome.winner is None
    assert "trial 0, the configuration started from, failed under a fresh seed (SIM" in outcome.verdict.reason
    assert "no trial beats" not in outcome.verdict.reason
    summary = write_outcome(bench.sweep, read_trials(bench.sweep.journal), outcome, state="finished", started=0.0)
    assert summary["judged"] is False
    assert summary["best"]["params"] == bench.sweep.plan.space.start(bench.sweep.config)


def test_assets_that_the_starting_values_cannot_train_are_left_out_and_named(small_lake: Path, tmp_path: Path) -> None:
    """Nothing can be said of them, whether or not the winner can; the others decide."""
    bench = Bench(searched(small_lake, tmp_path), gain=1.0)
    bench.sweep.plan.held_out.append("BAD3")  # type: ignore[attr-defined]
    bench.baseline_diverges_on = ("HLD2", "BAD3")
    verdict = bench.conclude().verdict
    assert verdict.adopted
    assert verdict.gain is not None
    assert verdict.gain.num_assets == 7
    (said,) = [one for one in verdict.warnings if "itself cannot train" in one]
    assert said.startswith("trial 0 itself cannot train HLD2, BAD3 (HLD2 diverged at epoch 3)")


@pytest.mark.parametrize("gain", [1.0, -0.5])
def test_choices_per_asset_are_judged_on_their_own_test_parts(small_lake: Path, tmp_path: Path, gain: float) -> None:
    """Three assets are too few to leave the defaults for; each still gets its choice."""
    sweep = searched(small_lake, tmp_path, per_asset=True)
    records = read_trials(sweep.journal)
    assert all("assets" in one.attributes for one in records if one.state == "complete")
    outcome = Bench(sweep, gain=gain).conclude()
    assert {one.ticker for one in outcome.choices} == set(sweep.plan.cohort)
    assert outcome.asset_verdict is not None
    assert "only 3 assets" in outcome.asset_verdict.reason
