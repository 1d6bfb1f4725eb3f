"""What a reader is told before believing a sweep's trials."""

from b3dist.distributed.sweep.cautions import cautions_of, describe_cohort
from b3dist.tuning.journal import TrialRecord
from tests.distributed.sweeps import BASE, scored


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
