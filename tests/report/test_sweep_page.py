"""A sweep's page: the verdict, every trial, Optuna's charts, and nothing that a browser would have to fetch."""

import json
import re
from pathlib import Path

import pytest

from b3dist.errors import RunError
from b3dist.report import write_report
from tests.distributed.sweeps import BASE, concluded, searched


def figures(page: str) -> list[object]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found
    drawn: list[object] = json.loads(found.group(1))["figures"]
    return drawn


def test_a_finished_sweep_shows_verdict_trials_and_charts(small_lake: Path, tmp_path: Path) -> None:
    """History, importance, parallel coordinates and curves are drawn; errors are shown as text, not as markup."""
    sweep = concluded(searched(small_lake, tmp_path, trials=14), adopted=True)
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert "A better configuration" in page
    assert page.count("data-trial=") == 15
    assert "SIMA3 diverged at epoch 1 &lt;b&gt;" in page
    assert all(figures(page))
    assert len(figures(page)) == 4
    assert "src=" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_two_objectives_show_the_pareto_front(small_lake: Path, tmp_path: Path) -> None:
    """Instead of curves, which Optuna does not keep then."""
    sweep = concluded(searched(small_lake, tmp_path, two_objectives=True), adopted=False)
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert "Pareto front" in page
    assert "Keep the defaults" in page
    assert figures(page)[3]


def test_a_stopped_sweep_is_shown_as_far_as_it_got(small_lake: Path, tmp_path: Path) -> None:
    """With how to go on; too few trials for a chart are said so."""
    sweep = searched(small_lake, tmp_path, trials=1, base=BASE)
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert f"b3dist sweep --resume {sweep.run.run_id}" in page
    assert "Too few trials to draw this" in page


def test_choices_per_asset_are_listed(small_lake: Path, tmp_path: Path) -> None:
    """With how much of their own evidence counted."""
    sweep = concluded(searched(small_lake, tmp_path, per_asset=True), adopted=True)
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert "Per asset" in page
    for ticker in sweep.plan.cohort:
        assert f'<tr><th scope="row">{ticker}</th>' in page


def test_a_sweep_that_has_not_begun_is_refused(small_lake: Path, tmp_path: Path) -> None:
    """One sentence with the file that is missing."""
    sweep = searched(small_lake, tmp_path)
    sweep.journal.unlink()
    with pytest.raises(RunError, match=r"journal\.log"):
        write_report(tmp_path, sweep.run.run_id)
