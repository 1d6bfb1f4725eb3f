"""The demo: its parts without Ray, and all of it once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from b3dist.cli.demo import mean_test_ic, prepare_lake
from b3dist.errors import ConfigError
from tests.cli.conftest import Outcome


def test_market_and_lake_are_made_once(tmp_path: Path) -> None:
    """A second demo finds the same market, and a lake with nothing new to take in."""
    first = prepare_lake(tmp_path / "demo", assets=2, sessions=150)
    again = prepare_lake(tmp_path / "demo", assets=2, sessions=150)
    assert first.manifest_hash == again.manifest_hash
    assert again.tickers()["num_sessions"].tolist() == [150, 150]


def test_demo_of_another_size_is_refused(tmp_path: Path) -> None:
    """Two markets never mix in one lake."""
    prepare_lake(tmp_path / "demo", assets=2, sessions=150)
    with pytest.raises(ConfigError, match="holds a demo of 2 assets x 150 sessions, got 3 x 150"):
        prepare_lake(tmp_path / "demo", assets=3, sessions=150)


def test_mean_ic_leaves_out_what_is_undefined(tmp_path: Path) -> None:
    """Assets whose correlation is null do not count; with none left the mean is None."""
    for ticker, ic in (("A", 0.2), ("B", None), ("C", 0.1)):
        (tmp_path / "assets" / ticker).mkdir(parents=True)
        metrics = {"test": {"return": {"ic": ic}}}
        (tmp_path / "assets" / ticker / "metrics.json").write_text(json.dumps(metrics))
    assert mean_test_ic(tmp_path) == pytest.approx(0.15)
    assert mean_test_ic(tmp_path / "assets") is None


@pytest.mark.ray
def test_demo_ends_with_a_report(b3dist: Callable[..., Outcome], tmp_path: Path) -> None:
    """The whole path offline: every asset trained, a run folder, one HTML page, keys of the contract."""
    done = b3dist("demo", "--out", tmp_path / "demo", "--assets", 2, "--sessions", 1020, "--json")
    assert done.exit_code == 0, done.stderr
    assert (done.answer["trained"], done.answer["failed"]) == (2, 0)
    assert (tmp_path / "demo" / "runs" / done.answer["run_id"] / "summary.json").is_file()
    page = Path(done.answer["report"]).read_text(encoding="utf-8")
    assert "SIMA3" in page
    assert "SIMA4" in page
