"""The time left: by the pace of this invocation, stage by stage."""

import pytest

from b3dist.cli.time_left import TimeLeft, clock


def test_pace_is_of_this_invocation_and_of_this_stage() -> None:
    """A resumed sweep had 10 of 40 done in no time: they say nothing about the 30 left."""
    left = TimeLeft()
    assert left.seconds("search", 10, 40, now=100.0) is None
    assert left.seconds("search", 10, 40, now=105.0) is None
    assert left.seconds("search", 15, 40, now=110.0) == pytest.approx(50.0)
    assert left.seconds("finalists", 0, 36, now=200.0) is None
    assert left.seconds("finalists", 12, 36, now=206.0) == pytest.approx(12.0)
    assert left.seconds("per-asset", 3, None, now=300.0) is None


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0:00"), (125.2, "2:05"), (3725, "1:02:05")])
def test_clock(seconds: float, said: str) -> None:
    """Hours only where there are any."""
    assert clock(seconds) == said
