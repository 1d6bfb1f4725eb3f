"""Trials trained together as stacks come out as they do one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from b3dist.config import Config
from b3dist.errors import TrainingError
from b3dist.training import fused_stepwise
from b3dist.training.fused import StackFitting
from b3dist.training.fused_data import StackMember
from b3dist.tuning.cohort import Cohort, CohortReport, SingleTrials, Trials, evaluate_asset
from b3dist.tuning.scores import AssetScore
from b3dist.tuning.stacked_cohort import StackedTrials, evaluate_stacked
from tests.training.stacks import SMALL, config_of, make_asset

LENGTHS = (260, 340, 300)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]
PATIENT = ("training.epochs=6", "training.min_delta=0", "training.patience=3")
SETS: Mapping[int, Sequence[str]] = {
    0: (),
    3: ("loss.gamma=0.5", "loss.action_weight=5", "model.dropout=0.1"),
    4: ("model.hidden_size=24",),
    5: ("training.learning_rate=1e30", "training.clip_norm=1e30"),
    8: ("training.learning_rate=1e-2", "training.weight_decay=1e-3"),
    9: ("data.lookback=12", "loss.return_weight=200"),
}
"""By trial; 5 diverges, 4 and 9 have shapes of their own."""


def cohort_of(*overrides: str) -> Cohort:
    """Three assets of different length."""
    config = config_of(*SMALL, *PATIENT, *overrides)
    return Cohort(assets=[make_asset(config, rows=rows, seed=seed) for seed, rows in enumerate(LENGTHS)], config=config)


def followed(trials: Trials, *, dropped: Mapping[int, int] | None = None) -> dict[int, list[CohortReport | Exception]]:
    """Every report of every trial to its end; `dropped` says after which epoch a trial is stopped."""
    told: dict[int, list[CohortReport | Exception]] = {}
    epoch = 0
    while reports := trials.advance():
        epoch += 1
        for number, report in reports.items():
            told.setdefault(number, []).append(report)
        trials.drop([number for number, last in (dropped or {}).items() if last == epoch])
    return told


def assert_same_score(one: AssetScore, other: AssetScore) -> None:
    """Errors within 1e-4; at most one window on an action's border falls on the other side."""
    assert one.squared_error == pytest.approx(other.squared_error, rel=1e-4)
    assert one.naive_squared_error == other.naive_squared_error
    assert abs(one.confusion - other.confusion).sum() <= 2
    assert one.confusion.sum(axis=1).tolist() == other.confusion.sum(axis=1).tolist()


def assert_same_reports(one: CohortReport | Exception, other: CohortReport | Exception) -> None:
    """Everything a trial reports after an epoch; float sums in another order."""
    if isinstance(other, Exception):
        assert type(one) is type(other) is TrainingError
        assert str(one).partition(":")[0] == str(other).partition(":")[0]
        return
    assert isinstance(one, CohortReport)
    assert (one.epoch, one.windows_trained, one.finished) == (other.epoch, other.windows_trained, other.finished)
    assert list(one.assets) == list(other.assets)
    for ticker, score in one.assets.items():
        assert_same_score(score, other.assets[ticker])
    assert one.score.error_ratio == pytest.approx(other.score.error_ratio, rel=1e-4)
    assert one.score.macro_f1 == pytest.approx(other.score.macro_f1, abs=0.02)


@pytest.fixture(scope="module")
def one_by_one() -> dict[int, list[CohortReport | Exception]]:
    """The single engine's reports."""
    return followed(SingleTrials({number: cohort_of(*overrides) for number, overrides in SETS.items()}))


@pytest.mark.parametrize("device", DEVICES)
def test_trials_in_stacks_report_what_they_report_alone(
    one_by_one: dict[int, list[CohortReport | Exception]], device: str
) -> None:
    """Epoch by epoch: other shapes, patience that runs out, one that diverges, and one that is stopped after two."""
    stacked = followed(
        StackedTrials({number: cohort_of(*overrides) for number, overrides in SETS.items()}, device=device),
        dropped={8: 2},
    )
    assert set(stacked) == set(one_by_one)
    assert isinstance(stacked[5][-1], TrainingError)
    assert len(stacked[8]) == 2 < len(one_by_one[8])
    for number, reports in stacked.items():
        expected = one_by_one[number][: 2 if number == 8 else None]
        for one, other in zip(reports, expected, strict=True):
            assert_same_reports(one, other)
    ended = [report for reports in one_by_one.values() if isinstance(report := reports[-1], CohortReport)]
    assert {report.epoch for report in ended} != {6}, "patience is to run out in one of them"


class Starved(StackFitting):
    """A stack on a device that holds two models of 16 units, one from the third epoch on, and none of 24."""

    def __init__(self, members: Sequence[StackMember], **options: Any) -> None:
        super().__init__(members, **options)
        self._require(2)

    def advance(self, epoch: int) -> Any:
        """The epoch, if there is room for it."""
        self._require(2 if epoch < 3 else 1)
        return super().advance(epoch)

    def _require(self, most: int) -> None:
        if len(self.order) > most or self.members[0].config.model.hidden_size > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_memory_that_runs_out_costs_time_and_no_numbers(
    one_by_one: dict[int, list[CohortReport | Exception]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stacks are halved at their first epoch and at the third; a trial whose model alone does not fit fails alone."""
    monkeypatch.setattr(fused_stepwise, "StackFitting", Starved)
    stacked = followed(StackedTrials({number: cohort_of(*SETS[number]) for number in (0, 3, 4)}))
    (error,) = stacked.pop(4)
    assert isinstance(error, torch.OutOfMemoryError)
    for number, reports in stacked.items():
        for one, other in zip(reports, one_by_one[number], strict=True):
            assert_same_reports(one, other)


@pytest.mark.parametrize("device", DEVICES)
def test_evaluations_in_stacks_score_what_they_score_alone(device: str) -> None:
    """Of both parts, in the order asked for: seeds and shapes mixed; the one that diverges is an error in its place."""
    configs: list[Config] = [
        config_of(*SMALL, *PATIENT, *overrides)
        for overrides in (("seed=1",), SETS[4], SETS[5], ("seed=2",), SETS[9], ("seed=1", "loss.gamma=1"))
    ]
    members = [
        StackMember(data=make_asset(config, rows=LENGTHS[place % 3], seed=place % 3), config=config)
        for place, config in enumerate(configs)
    ]
    for member, scores in zip(members, evaluate_stacked(members, device=device), strict=True):
        if member.config.training.learning_rate > 1:
            assert isinstance(scores, TrainingError)
            continue
        assert not isinstance(scores, TrainingError)
        alone = evaluate_asset(member.data, member.config)
        assert list(scores) == list(alone) == ["val", "test"]
        for part, score in scores.items():
            assert_same_score(score, alone[part])
