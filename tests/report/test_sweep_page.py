"""A sweep's page: the verdict, every trial, Optuna's charts, and nothing that a browser would have to fetch."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from b3dist.distributed.run_list import run_status
from b3dist.errors import RunError
from b3dist.report import write_report
from b3dist.tuning.journal import load_study
from b3dist.tuning.verdict import Verdict
from tests.distributed.sweeps import BASE, aged, begun, concluded, searched
from tests.report.browser import dom_of


def figures(page: str) -> list[Any]:
    """Plotly's data and layout of every chart."""
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found
    drawn: list[Any] = json.loads(found.group(1))["figures"]
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
    dominated, front, costless = figures(page)[3]["data"]
    assert costless["y"] == [1.0]
    best = {trial.number for trial in load_study(sweep.journal).best_trials}
    assert {int(text) for text in front["text"]} == best
    assert len(dominated["x"]) + len(best) == 8  # nine trials, one failed


@pytest.mark.parametrize("two_objectives", [False, True])
def test_history_steps_up_to_the_best_complete_trial(small_lake: Path, tmp_path: Path, two_objectives: bool) -> None:
    """With two objectives too; the figures are the same whenever the page is written."""
    sweep = searched(small_lake, tmp_path, trials=14, two_objectives=two_objectives)
    drawn = figures(write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8"))
    best, trials, _ = drawn[0]["data"]
    assert best["y"] == sorted(best["y"])
    assert best["y"][-1] == max(trials["y"])
    assert drawn == figures(write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8"))


def test_a_browser_draws_every_chart(small_lake: Path, tmp_path: Path) -> None:
    """Under the page's own policy, and without an error."""
    sweep = concluded(searched(small_lake, tmp_path / "runs", trials=14), adopted=True)
    dom = dom_of(write_report(tmp_path / "runs", sweep.run.run_id), profile=tmp_path / "profile")
    assert re.findall(r'<div id="figure-(\d)" class="js-plotly-plot', dom) == list("0123")
    assert "trial 0" in dom
    assert "NaN" not in dom.partition("<script")[0]


def test_a_stopped_sweep_is_shown_as_far_as_it_got(small_lake: Path, tmp_path: Path) -> None:
    """With how to go on; too few trials for a chart are said so."""
    sweep = searched(small_lake, tmp_path, trials=1, base=BASE)
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert f"b3dist sweep --resume {sweep.run.run_id} --runs {tmp_path}" in page
    assert "Too few trials to draw: Parameter importance." in page
    assert len(figures(page)) == page.count('<div id="figure-') == 3


def tile(page: str, name: str) -> str:
    """The number below a heading on top of the page."""
    (number,) = re.findall(rf"<dt>{name}</dt><dd>(.*?)</dd>", page)
    return str(number)


def test_a_trial_of_a_driver_that_is_gone_is_abandoned(small_lake: Path, tmp_path: Path) -> None:
    """As `runs status` says; while the driver lives it is running."""
    sweep = begun(small_lake, tmp_path)
    with sweep.run.driven():
        page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert "in phase 1 of 3: search, 2 of 9 trials ended" in page
    assert (tile(page, "Running"), tile(page, "Abandoned by a killed driver")) == ("1", "0")
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert (tile(page, "Complete"), tile(page, "Abandoned by a killed driver")) == ("2", "1")
    assert '<span class="state abandoned">abandoned</span>' in page
    assert '<span class="state running">' not in page


def test_winner_trial_0_and_what_costs_nothing_are_set_off(small_lake: Path, tmp_path: Path) -> None:
    """By name in the charts of scores, by width among the settings, by a mark in the table."""
    sweep = concluded(searched(small_lake, tmp_path, trials=14), adopted=True)
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    (winner,) = re.findall(r'<tr data-trial="(\d+)" class="winner">', page)
    assert re.findall(r'<tr data-trial="(\d+)" class="start">', page) == ["0"]
    history, _, parallel, curves = figures(page)
    named = {"trial 0", f"trial {winner}"}
    assert {text for text in history["data"][1]["text"] if text} == named
    assert {text for line in curves["data"][:-1] for text in line["text"] if text} == named
    assert sum(line["line"]["width"] == 3 for line in parallel["data"] if "line" in line) == 2
    for chart in (history, curves):
        assert chart["data"][-1]["y"] == [pytest.approx(2 * 300 / 680 / 3)] * 2
        assert chart["data"][-1]["text"][0].startswith("always hold: 0.")


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


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("two_objectives", [False, True])
def test_optunas_own_plots_read_the_journal_as_documented(
    small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_objectives: bool
) -> None:
    """The lines of docs/sweeps.md, as they stand; the journal is left as it was."""
    sweep = searched(small_lake, tmp_path, trials=14, two_objectives=two_objectives)
    before = sweep.journal.read_bytes()
    monkeypatch.chdir(sweep.run.path)
    text = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(lines, "docs/sweeps.md", "exec"), {})
    drawn = {path.stem for path in sweep.run.path.glob("*.html")}
    assert drawn == {
        "history",
        "importance",
        "parallel",
        "contour",
        "slice",
        "pareto" if two_objectives else "by_epoch",
    }
    assert len((sweep.run.path / "trials.csv").read_text(encoding="utf-8").splitlines()) == 16
    assert sweep.journal.read_bytes() == before


def test_a_winner_below_what_costs_nothing_is_no_better_configuration(small_lake: Path, tmp_path: Path) -> None:
    """Though better than trial 0; the table shows all three beside what was true."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=True, found=2)
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert "<h2>Better than trial 0, but not than what costs nothing</h2>" in page
    assert "A better configuration" not in page
    table = page.partition('id="held-out"')[2].partition("</table>")[0]
    assert re.findall(r'scope="row">([^<]*)<', table) == ["the winner", "trial 0", "always hold, no change", "true"]
    assert "fewer than 30 windows of sell" in page


def test_the_comparison_is_described_only_if_it_was_made(small_lake: Path, tmp_path: Path) -> None:
    """Where no finalist beat trial 0, nobody was compared on held-out assets."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=True)
    path = sweep.run.path / "summary.json"
    assert "was then\n    compared" in write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    summary = json.loads(path.read_text(encoding="utf-8"))
    kept = Verdict(adopted=False, reason="no trial beats trial 0: keep the defaults")
    path.write_text(json.dumps({**summary, "verdict": kept.to_dict()}), encoding="utf-8")
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert "<h2>Finalists</h2>" in page
    assert "compared" not in page.partition("<h2>Finalists</h2>")[2].partition("<table>")[0]
    assert 'id="held-out"' not in page


def test_a_summary_from_before_the_comparison_with_the_constant_is_still_drawn(
    small_lake: Path, tmp_path: Path
) -> None:
    """It claims no more than what was compared then."""
    sweep = aged(concluded(searched(small_lake, tmp_path), adopted=True))
    page = write_report(tmp_path, sweep.run.run_id).read_text(encoding="utf-8")
    assert "<h2>Better than trial 0</h2>" in page
    assert run_status(tmp_path, sweep.run.run_id)["state"] == "finished"
