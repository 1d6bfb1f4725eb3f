"""A pooled run's page: the one model over all windows, beside what costs nothing."""

import json
import re
from pathlib import Path

from b3dist.report import write_report
from b3dist.report.pooled_view import whole_model
from b3dist.report.words import NOTHING
from tests.report.run_builder import make_run

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
