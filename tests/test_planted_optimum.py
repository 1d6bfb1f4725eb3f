"""The search finds an optimum that is known, which random search does not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "planted_optimum.py"


def run_bench(*arguments: str) -> dict[str, Any]:
    finished = subprocess.run([sys.executable, str(BENCH), *arguments], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def test_a_planted_optimum_is_found_in_60_trials() -> None:
    """Within 5 % of each of four ranges, in both seeds, with trials stopped early as by default."""
    found = run_bench("--seeds", "2", "--halving")
    assert found["found"] == 2
    assert found["median_regret"] < found["median_random_regret"] / 5


@pytest.mark.slow
def test_a_planted_optimum_is_found_in_most_seeds() -> None:
    """In at least 8 of 10 seeds; regret is below random search's beyond chance."""
    found = run_bench()
    assert found["found"] >= 8
    assert found["median_regret"] < found["median_random_regret"]
    assert found["wilcoxon_p"] < 0.05
