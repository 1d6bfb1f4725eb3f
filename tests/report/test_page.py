"""The report as a file: self-contained, harmless whatever the run holds, and drawn by a real browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from b3dist.cli.verbs import app
from b3dist.errors import StorageError
from b3dist.report import write_note, write_report
from tests.report.browser import dom_of
from tests.report.run_builder import make_run, warm_start

RUN = "20240102-030405-abcd"
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}"


class Page(HTMLParser):
    """Tags with their attributes, text of scripts, and the text a person reads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.visible = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "img", "br"):
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        """Every end tag closes the tag opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif not self.open or self.open[-1] != "style":
            self.visible += data


def report_of(runs: Path) -> Page:
    """The report of the test run, parsed."""
    return Page(write_report(runs, RUN).read_text(encoding="utf-8"))


def test_nothing_is_fetched(tmp_path: Path) -> None:
    """No tag refers to anything outside the file, and its policy forbids what is not inlined."""
    make_run(tmp_path)
    text = write_report(tmp_path, RUN).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    references = {name for _, attributes in page.tags for name in attributes} & {"src", "href", "srcset", "action"}
    assert references == set()
    assert "url(" not in text.partition("</style>")[0]
    policy = next(str(attributes["content"]) for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")
    allowed = set(re.findall(r"'(sha256-[^']+)'", policy))
    code = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    hashes = {"sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code}
    assert hashes == allowed
    assert len(code) == 3


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """Tickers, errors and settings that look like markup or templates appear as they are and add no tag."""
    make_run(tmp_path, failed=[("OGXP3", EVIL)], skipped=[("<b>AAAA3", EVIL)])
    facts = tmp_path / RUN / "assets" / "PETR4" / "bundle.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "anchor": EVIL}))
    page = report_of(tmp_path)
    assert page.visible.count(EVIL) == 2
    assert "<b>AAAA3" in page.visible
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert sum(attributes.get("type") != "application/json" for attributes, _ in page.scripts) == 3
    views = [json.loads(text) for attributes, text in page.scripts if attributes.get("class") == "asset-data"]
    assert views[0]["facts"]["anchor"] == EVIL


def test_overview_and_views_hold_every_asset(tmp_path: Path) -> None:
    """One row and one view per trained asset, in the same order, with the run's own numbers."""
    folder = make_run(tmp_path, trained=["VALE3", "ABEV3", "PETR4"])
    page = report_of(tmp_path)
    rows = json.loads(next(text for attributes, text in page.scripts if attributes.get("id") == "overview"))["rows"]
    views = [json.loads(text) for attributes, text in page.scripts if attributes.get("class") == "asset-data"]
    assert [row["ticker"] for row in rows] == [view["ticker"] for view in views] == ["ABEV3", "PETR4", "VALE3"]
    metrics = json.loads((folder / "assets" / "ABEV3" / "metrics.json").read_text())
    assert rows[0]["test"]["accuracy"] == metrics["test"]["accuracy"]
    part = views[0]["parts"]["test"]
    lengths = {name: len(part[name]) for name in ("close", "action", "truth", "predicted_bp", "realised_bp")}
    assert set(lengths.values()) == {60}
    hits = sum(said == true for said, true in zip(part["action"], part["truth"], strict=True))
    assert hits / 60 == pytest.approx(metrics["test"]["accuracy"])
    assert "12.5 s" in page.visible
    assert "123,456" in page.visible
    assert "parent run 0123abcd; not logged: VALE3" in page.visible


def test_note_stands_above_everything(tmp_path: Path) -> None:
    """A run's note is the first thing a reader sees, as text; without one there is no banner."""
    folder = make_run(tmp_path)
    assert not [tag for tag, attributes in report_of(tmp_path).tags if attributes.get("class") == "banner"]
    write_note(folder, f"Simulated market. {EVIL}")
    page = report_of(tmp_path)
    body = page.visible.partition("b3dist run")[2].strip()
    assert body.partition("\n")[2].strip().startswith(f"Simulated market. {EVIL}")


def test_run_without_a_trained_asset(tmp_path: Path) -> None:
    """The page says that there is no model and why, for each asset."""
    make_run(tmp_path, trained=[], skipped=[("NEWC3", "400 sessions, 1000 needed")], failed=[("OGXP3", "diverged")])
    text = report_of(tmp_path).visible
    assert "No asset of this run has a model" in text
    assert "400 sessions, 1000 needed" in text
    assert "diverged" in text


def test_stopped_run_says_so(tmp_path: Path) -> None:
    """A run without a summary is shown as far as it got, with the command that goes on."""
    make_run(tmp_path, finished=False)
    text = report_of(tmp_path).visible
    assert "stopped before its end" in text
    assert f"b3dist fleet --resume {RUN} --runs {tmp_path}" in text


def test_pooled_run_is_called_one(tmp_path: Path) -> None:
    """One model for all assets, divided at the same dates; another verb goes on with it."""
    make_run(tmp_path, finished=False, kind="pooled")
    text = report_of(tmp_path).visible
    assert f"b3dist pooled --resume {RUN} --runs {tmp_path}" in text
    assert "One LSTM for all assets" in text
    assert "divided at the same dates" in text
    assert "fleet" not in text.lower()


def test_damaged_run_still_has_a_page(tmp_path: Path) -> None:
    """Missing files of the run and of an asset are named and the rest is shown."""
    folder = make_run(tmp_path)
    (folder / "config.json").unlink()
    for name in ("metrics.json", "bundle.json", "history.csv", "predictions.parquet"):
        (folder / "assets" / "PETR4" / name).unlink()
    page = report_of(tmp_path)
    assert "config.json is missing" in page.visible
    views = [json.loads(text) for attributes, text in page.scripts if attributes.get("class") == "asset-data"]
    assert len(views[0]["missing"]) == 4
    assert views[1]["missing"] == []


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    """Of an asset too, and not on the page alone."""
    folder = make_run(tmp_path)
    (folder / "assets" / "PETR4" / "metrics.json").write_text('{"val": {', encoding="utf-8")
    problems: list[str] = []
    write_report(tmp_path, RUN, on_problem=problems.append)
    (problem,) = problems
    assert problem.startswith("PETR4: metrics.json")


def test_settings_that_differ_from_the_card_are_counted(tmp_path: Path) -> None:
    """The builder's run trains five epochs; the card trains fifty."""
    make_run(tmp_path)
    text = report_of(tmp_path).visible
    assert "settings that differ from the model card's: 1" in text
    assert "card: 50" in text


def test_verb_prints_the_path(tmp_path: Path) -> None:
    """`report --json` names the file it wrote, `--out` decides where; the newest run by default; an unknown exits 1."""
    make_run(tmp_path / "runs")
    arguments = ["report", RUN, "--runs", str(tmp_path / "runs"), "--json"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").is_file()
    assert not (tmp_path / "runs" / RUN / "report.html").exists()
    newest = CliRunner().invoke(app, ["report", "--runs", str(tmp_path / "runs")])
    assert newest.exit_code == 0, newest.output
    assert (tmp_path / "runs" / RUN / "report.html").is_file()
    assert CliRunner().invoke(app, ["report", "nosuch", "--runs", str(tmp_path / "runs")]).exit_code == 1


def test_unwritable_target_leaves_nothing(tmp_path: Path) -> None:
    """A target in a folder that is not there is one clear error."""
    make_run(tmp_path)
    with pytest.raises(StorageError, match=r"cannot write the report .*page\.html"):
        write_report(tmp_path, RUN, out=tmp_path / "nowhere" / "page.html")


def test_a_browser_draws_it(tmp_path: Path) -> None:
    """Opened in a browser, tables and charts are there, the asset in the address is open, and no error is logged."""
    make_run(tmp_path, failed=[("OGXP3", EVIL)])
    path = write_report(tmp_path, RUN)
    dom = dom_of(path, fragment="#VALE3", profile=tmp_path / "profile")
    assert "<title>b3dist run" in dom
    assert re.findall(r'<button type="button">([A-Z]{4}[0-9])</button>', dom) == ["PETR4", "VALE3"]
    assert len(re.findall(r'class="chart[^"]*js-plotly-plot"', dom)) == 8
    assert re.search(r'id="asset-title">VALE3<', dom)
    assert dom.count('class="confusion"') == 2


def test_a_warm_start_is_compared_with_what_was_kept(tmp_path: Path) -> None:
    """A row per score and part, each asset's start in the table, and both charts drawn by a browser."""
    trained = ["ABEV3", "BBDC4", "ITUB4", "PETR4", "VALE3", "WEGE3"]
    run = make_run(tmp_path, trained=trained)
    warm_start(run, "R0", {ticker: (ticker, number % 3) for number, ticker in enumerate(trained)})
    path = write_report(tmp_path, RUN)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.visible.count("better4 / 0 / 2") == 2, "the error, on both parts"
    assert page.visible.count("not told apart0 / 0 / 6") == 2, "macro F1"
    assert "unchanged in 2 of 6 assets" in page.visible
    dom = dom_of(path, profile=tmp_path / "profile")
    assert len(re.findall(r'class="chart[^"]*js-plotly-plot"', dom)) == 6
    assert dom.count("own model, unchanged") == 2
    assert "kept is better: 4" in dom


def test_older_warm_starts_say_that_nothing_was_kept_of_the_start(tmp_path: Path) -> None:
    """No table of nothing; a run started from nothing has no such section, a damaged one says why."""
    run = make_run(tmp_path)
    assert "training on from the start" not in report_of(tmp_path).visible
    warm_start(run, "R0", {"PETR4": (None, 1), "VALE3": (None, 2)})
    assert "No asset's start was judged" in report_of(tmp_path).visible
    (run / "assets" / "PETR4" / "metrics.json").write_text("{")
    assert "What this run started from cannot be told" in report_of(tmp_path).visible
