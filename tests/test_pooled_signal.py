"""The pooled model, from files to test IC, finds a planted signal, and nothing where nothing is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "pooled_signal.py"


def run_bench(*arguments: str) -> dict[str, Any]:
    finished = subprocess.run([sys.executable, str(BENCH), *arguments], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def test_a_strong_signal_is_found_in_a_small_market() -> None:
    """Six assets, one seed and a few epochs suffice to tell a planted correlation of 0.5 from none."""
    small = ("--seeds", "1", "--assets", "6", "--sessions", "900", "--signal", "0.5")
    found = run_bench(*small, "--set", "training.epochs=8", "--set", "training.batch_size=128")
    assert found["mean_difference"] > 0.15


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_planted_signal_over_six_seeds() -> None:
    """24 assets x 1,500 sessions x 6 seeds: planted 0.15 stands out by 0.08, in every seed; the null is within 0.04."""
    found = run_bench()
    assert found["accepted"], found
