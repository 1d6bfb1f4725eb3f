"""A run's report shows the model card of every release that was made of it."""

from pathlib import Path

from b3dist.release import promote
from b3dist.release.store import ReleaseStore
from b3dist.report import write_report
from tests.release.releases import make_release
from tests.report.test_page import Page


def test_cards_of_the_runs_releases(small_lake: Path, tmp_path: Path) -> None:
    """The card with its alias, in valid HTML; of another run's releases nothing; a damaged one is named."""
    release = make_release(small_lake, tmp_path, tickers=["SIMA3"])
    other = make_release(small_lake, tmp_path, tickers=["SIMA4"])
    runs, run_id = tmp_path / "runs", release.manifest["run_id"]
    promote(ReleaseStore(tmp_path / "releases"), release.release_id)
    page = Page(write_report(runs, run_id).read_text(encoding="utf-8"))
    assert f"{release.release_id} (champion): its model card" in page.visible
    assert "Risk, and no advice" in page.visible
    assert page.open == []
    assert other.release_id not in page.visible
    card = release.path / "model_card.md"
    card.chmod(0o644)
    card.write_text("changed")
    assert "model_card.md has sha256" in Page(write_report(runs, run_id).read_text(encoding="utf-8")).visible
    (tmp_path / "releases" / "aliases.json").write_text("{")
    assert "aliases.json is damaged" in Page(write_report(runs, run_id).read_text(encoding="utf-8")).visible
    nowhere = write_report(runs, run_id, releases=tmp_path / "none")
    assert "Released as" not in Page(nowhere.read_text(encoding="utf-8")).visible
