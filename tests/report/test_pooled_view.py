"""A pooled run's page: the one model over all windows, beside what costs nothing."""

import json
import re
from pathlib import Path

from b3dist.report import write_report
from b3dist.report.pooled_view import whole_model
from b3dist.report.words import NOTHING
from tests.report.browser import dom_of
from tests.report.run_builder import make_bundle, make_run, warm_start

PART = {
    "accuracy": 0.5,
    "macro_f1": 0.25,
    "return": {"rmse": 0.02},
    "mean_over_assets": {"ic": None},
    "baselines": {"majority": {"accuracy": 0.99, "macro_f1": 0.33}, "persistence": {"return": {"rmse": 0.0199}}},
}
SUMMARY = {
    "metrics": {"val": {**PART, "accuracy": 0.75}, "test": PART, "best_epoch": 2, "epochs": 5},
    "pooled": {"workers": 2, "windows_per_s": 1234.5, "all_reduce_share": 0.125},
}


def test_each_number_stands_beside_its_baseline(tmp_path: Path) -> None:
    """Test first, then validation; what is undefined is a dash; how fast, on how many workers."""
    folder = make_run(tmp_path, kind="pooled")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, **SUMMARY}))
    page = write_report(tmp_path, folder.name).read_text(encoding="utf-8")
    (table,) = re.findall(r'<table id="whole">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    rows = [re.findall(r">([^<>]+)</t[hd]>", row) for row in table.split("</tr>")[:-1]]
    assert rows[0] == ["Accuracy", "0.5000", "0.9900", "0.7500", "0.9900"]
    assert rows[2] == ["Return RMSE", "0.0200", "0.0199", "0.0200", "0.0199"]
    assert rows[3] == ["Return IC, mean over assets", *4 * [NOTHING]]
    assert "1,234 windows/s on 2 workers, 12% of the time exchanging gradients" in page
    assert "epoch 2 of 5" in page


def test_runs_without_a_whole_model_say_nothing_of_one() -> None:
    """A fleet, and a pooled run that was stopped."""
    assert whole_model({"totals": {}}) is None
    assert whole_model({"metrics": None, "pooled": {"epochs": 3}}) is None


def pooled_run(runs: Path) -> Path:
    """A finished pooled run whose model's folder says the cut, and whose second asset begins after it."""
    folder = make_run(runs, kind="pooled")
    test = {**PART, "skill": {"p_value": 0.918}, "per_class": {"buy": {"support": 8}, "hold": {"support": 3345}}}
    summary = json.loads((folder / "summary.json").read_text())
    metrics = {**SUMMARY["metrics"], "test": test}
    (folder / "summary.json").write_text(json.dumps({**summary, **SUMMARY, "metrics": metrics}))
    edit(make_bundle(folder / "pooled"), cut={"validation_from": "2016-06-30", "test_from": "2017-10-25"})
    splits = {"train": {"first": None, "last": None, "num_windows": 0}}
    edit(folder / "assets" / "VALE3", splits=splits)
    return folder


def edit(folder: Path, **facts: object) -> None:
    """Change what a bundle says of itself."""
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_cut_rare_actions_and_the_test_per_session_are_told(tmp_path: Path) -> None:
    """What the numbers rest on, and that nothing was shown."""
    page = " ".join(write_report(tmp_path, pooled_run(tmp_path).name).read_text(encoding="utf-8").split())
    assert "training before 2016-06-30, validation from then, test from 2017-10-25" in page
    assert "divided at the same dates (2016-06-30 and 2017-10-25)" in page
    assert "Test windows: 8 buy, 3,345 hold." in page
    assert "p = 0.918 on the test part that predictions beat no change: not shown" in page


def test_assets_that_the_model_never_trained_on_are_named(tmp_path: Path) -> None:
    """They are no evidence of what it learned of them."""
    page = write_report(tmp_path, pooled_run(tmp_path).name).read_text(encoding="utf-8")
    assert "scaled as all assets together: VALE3.</p>" in page


def test_a_browser_draws_the_models_losses(tmp_path: Path) -> None:
    """And calls an unseen asset so where others have their kept epoch."""
    page = write_report(tmp_path / "runs", pooled_run(tmp_path / "runs").name)
    dom = dom_of(page, fragment="#VALE3", profile=tmp_path / "profile")
    assert re.search(r'id="chart-whole"[^>]*><div class="plot-container', dom)
    assert "kept: epoch 2" in dom
    assert re.findall(r">(unseen)</td>", dom) == ["unseen"]
    assert "training: no window" in dom


def test_a_warm_started_run_says_where_from(tmp_path: Path) -> None:
    """As the command's answer does; an asset says which model, and whether it is still that."""
    run = make_run(tmp_path / "runs")
    warm_start(run, "R0", {"PETR4": ("PETR4", 0), "VALE3": ("pooled", 2)})
    page = write_report(tmp_path / "runs", run.name)
    assert "This run started from run R0: 1 from their own models, 1 from the" in page.read_text(encoding="utf-8")
    dom = dom_of(page, fragment="#PETR4", profile=tmp_path / "profile")
    assert "started from run R0, PETR4, kept as it came" in dom
