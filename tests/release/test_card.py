"""Every release carries a card of its own: what it is of, how good beside what costs nothing, and no advice."""

import json
import statistics
from pathlib import Path

import pytest

from b3dist.release import Refitting, Release, ReleaseStore, card_html, create_release
from b3dist.run_folder import RunFolder


def line(card: str, *words: str) -> list[str]:
    """The cells of the one table row that begins with these."""
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in card.splitlines() if row.startswith("|")]
    (found,) = [row for row in rows if row[: len(words)] == list(words)]
    return found


def test_the_numbers_are_the_bundles(release: Release, run: RunFolder) -> None:
    """Means over assets, each beside its baseline; lowest and highest name their asset."""
    tests = {folder.name: json.loads((folder / "metrics.json").read_text())["test"] for folder in run.assets.iterdir()}
    f1 = {ticker: part["macro_f1"] for ticker, part in tests.items()}
    row = line(release.card, "macro F1", "test")
    assert row[2].split()[0] == f"{statistics.fmean(f1.values()):.4f}"
    majority = statistics.fmean(part["baselines"]["majority"]["macro_f1"] for part in tests.values())
    assert row[3] == f"{majority:.4f}"
    ratio = {
        ticker: part["return"]["rmse"] / part["baselines"]["persistence"]["return"]["rmse"]
        for ticker, part in tests.items()
    }
    row = line(release.card, "return RMSE / persistence", f"{min(ratio.values()):.4f} ({min(ratio, key=ratio.get)})")
    assert row[3:] == [f"{max(ratio.values()):.4f} ({max(ratio, key=ratio.get)})", "6"]


def test_it_says_what_it_is_and_is_not(release: Release, run: RunFolder) -> None:
    """Run, lake, period, what is missing, intended use, limits, and that nothing is advice."""
    for word in (release.release_id, run.run_id, run.settings.lake_manifest_hash, "LOST3: failed, it diverged"):
        assert word in release.card
    windows = sum(asset.metrics["test"]["num_windows"] for asset in release.assets.values())
    first = min(asset.facts["splits"]["test"]["first"] for asset in release.assets.values())
    assert line(release.card, "test")[1:] == [f"{first} to {release.manifest['newest_session']}", str(windows)]
    for heading in ("## Intended use", "## Limits", "## Risk, and no advice"):
        assert heading in release.card
    assert "financial advice" in release.card
    assert "they have not seen the newest part" in release.card


def test_a_refit_says_that_it_was_not_judged(run: RunFolder, tmp_path: Path) -> None:
    """Its metrics are of the evaluated weights."""
    release = create_release(ReleaseStore(tmp_path), run, refit=Refitting(workers=1))
    assert "6 assets refitted on all rows" in release.card
    assert "were never judged on sessions they had not seen" in release.card


def test_a_note_of_the_run_comes_first(run: RunFolder, tmp_path: Path) -> None:
    """That a market is simulated stands above every number; markup in it is shown, not obeyed."""
    note = run.path / "note.txt"
    note.write_text("Simulated <script>alert(1)</script>\n")
    try:
        card = create_release(ReleaseStore(tmp_path), run).card
    finally:
        note.unlink()
    assert card.index("> Simulated") < card.index("| release |")
    html = card_html(card)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_the_html_has_the_tables(release: Release) -> None:
    """Rendered, the card has headings and tables."""
    html = card_html(release.card)
    assert html.startswith("<h1>Model card of release")
    assert html.count("<table>") == 4
    assert "| " not in html


@pytest.mark.parametrize("word", ["None", " nan", "{{"])
def test_nothing_undefined_is_printed(release: Release, word: str) -> None:
    """No Python or template leftovers in the text."""
    assert word not in release.card
