"""What a reader is told before believing a sweep's trials."""

from dataclasses import replace

import pytest

from b3dist.distributed.sweep.cautions import cautions_before, cautions_of, describe_cohort
from b3dist.distributed.sweep.folder import SweepPlan
from b3dist.tuning.journal import TrialRecord
from b3dist.tuning.space import search_space
from tests.distributed.sweeps import BASE, scored

CARD = BASE.replace_setting("training.epochs", 50)
PLAN = SweepPlan(
    space=search_space(CARD),
    cohort=list("ABCDEF"),
    held_out=list("GHIJKL"),
    excluded={},
    trials=40,
    finalists=3,
    seeds=3,
    two_objectives=False,
    halving=True,
    per_asset=False,
    recipe_epochs=50,
)


def trial(number: int, curve: list[float], *, assets: int = 2) -> TrialRecord:
    """A complete trial with macro F1 by epoch, on assets of 40 buys, 40 sells and 300 holds."""
    return TrialRecord(
        number=number,
        state="complete",
        params={},
        values=(curve[-1],),
        curve=dict(enumerate(curve, start=1)),
        attributes={
            "baseline": number == 0,
            "assets": {f"SIM{one}": scored(0.5).to_dict() for one in range(assets)},
        },
    )


def test_the_cohorts_events_are_counted() -> None:
    """Once per window, with what costs nothing on the same ones; nothing is known before trial 0 has ended."""
    cohort = describe_cohort([trial(0, [0.1]), trial(1, [0.2])])
    assert cohort is not None
    assert cohort["support"] == {"buy": 80, "sell": 80, "hold": 600}
    assert cohort["constant_action"] == "hold"
    assert abs(cohort["constant_macro_f1"] - 2 * 600 / (600 + 760) / 3) < 1e-12
    assert describe_cohort([trial(1, [0.2])]) is None


def test_few_events_and_curves_that_still_rise_are_told() -> None:
    """Trials that ended by themselves, or had stopped rising, say nothing about the number of epochs."""
    epochs = BASE.training.epochs
    rising = [trial(number, [0.1 + 0.01 * epoch for epoch in range(epochs)]) for number in range(3)]
    (caution,) = cautions_of(rising, BASE)
    assert f"3 of 3 complete trials still got better in the last of {epochs} epochs" in caution
    flat = [trial(number, [0.1, 0.2, *[0.2] * (epochs - 2)]) for number in range(3)]
    ended = [trial(3, [0.1, 0.2])]
    assert cautions_of([*flat, *ended], BASE) == []
    few = [trial(0, [0.1], assets=1)]
    few[0].attributes["assets"]["SIM0"]["confusion"] = [[3, 0, 0], [0, 18, 0], [0, 0, 300]]
    (caution,) = cautions_of(few, BASE)
    assert "3 buys, 18 sells, 300 holds" in caution


def test_the_usual_sweep_needs_no_caution() -> None:
    """Nor one of a version that did not note the recipe's epochs."""
    assert cautions_before(PLAN, CARD) == []
    assert cautions_before(replace(PLAN, recipe_epochs=None, halving=False), BASE) == []


@pytest.mark.parametrize(
    ("changes", "epochs", "said"),
    [
        ({"support": [5, 8, 1319]}, 50, "5 buys, 8 sells, 1,319 holds"),
        ({"halving": False}, 6, "trains 6 of the recipe's 50 epochs"),
        ({"halving": False}, 6, "best.yaml says 6 as well"),
        ({"trials": 14}, 50, "with 14 trials of 21 epochs two in three are stopped after epoch 7"),
        ({"recipe_epochs": 11}, 11, "with 40 trials of 11 epochs two in three are stopped after epoch 3"),
        ({"per_asset": True, "halving": False, "cohort": list("ABC")}, 50, "--per-asset with 3 assets"),
        ({"space": search_space(CARD, ["data.lookback=16:48"])}, 50, "data.lookback is searched"),
        ({"space": search_space(CARD, ["data.volatility_multiple"])}, 50, "other labels"),
    ],
)
def test_what_cannot_come_to_much_is_told_before_it_is_waited_for(
    changes: dict[str, object], epochs: int, said: str
) -> None:
    """One sentence each."""
    (caution,) = cautions_before(replace(PLAN, **changes), CARD.replace_setting("training.epochs", epochs))  # type: ignore[arg-type]
    assert said in caution
