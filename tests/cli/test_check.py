"""`b3dist check` on a lake: the contract's keys, exit code 0 with problems, a table that does not flood."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from b3dist.data.cotahist import FIELDS, write_cotahist
from b3dist.data.lake import ingest
from tests.cli.conftest import Outcome
from tests.data.market_builder import SESSIONS, asset_bars, market_bars, standing

NO_QUOTES = [f"Q{i:03d}3" for i in range(9)]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split, a crash, a halt, nine tickers without quotes and a session without a file, through a real ingest."""
    folder = tmp_path_factory.mktemp("check")
    assets = [
        asset_bars("AAAA3", factor=2, marks=standing("EB")),
        asset_bars("BBBB3", returns={20: -0.4}, dismes_grows_at=()),
        asset_bars("CCCC3", dismes_grows_at=(), present=[*range(10), *range(20, 40)]),
        *(asset_bars(ticker, dismes_grows_at=()).assign(best_bid=0.0) for ticker in NO_QUOTES),
    ]
    bars = market_bars(*assets)
    records = bars[bars["session"] != SESSIONS[30]].assign(
        bdi_code="02",
        market=10,
        specification=lambda frame: "ON  " + frame["ex_mark"].str.ljust(4) + "NM",
        term_days="",
        currency="R$",
        strike=0.0,
        strike_correction=0,
        expiry=np.datetime64("9999-12-31", "s"),
        strike_points=0.0,
    )
    write_cotahist(
        folder / "COTAHIST_A2016.ZIP", records[[field.name for field in FIELDS]], generated=date(2016, 12, 30)
    )
    ingest([folder / "COTAHIST_A2016.ZIP"], folder / "lake")
    return folder / "lake"


def test_json_holds_tickers_events_and_problems(lake: Path, b3dist: Callable[..., Outcome]) -> None:
    """One object with the contract's keys; problems do not fail the verb."""
    outcome = b3dist("check", "--lake", lake, "--json")
    assert outcome.exit_code == 0
    report = outcome.answer
    assert report["tickers"] == 42
    assert report["events"] == [
        {"ticker": "AAAA3", "ex_date": str(SESSIONS[20].astype("datetime64[D]")), "factor": 2.0, "mark": "EB"}
    ]
    found = pd.DataFrame(report["problems"])
    assert found.columns.tolist() == ["ticker", "session", "kind", "detail"]
    assert set(found.loc[found["kind"] == "zero_quote", "ticker"]) == set(NO_QUOTES)
    assert found.loc[found["kind"] == "freak_return", "ticker"].tolist() == ["BBBB3"]
    assert found.loc[found["kind"] == "gap", "ticker"].tolist() == ["CCCC3"]
    missing = found[found["kind"] == "missing_session"]
    assert missing["ticker"].tolist() == ["*"]
    assert missing["session"].tolist() == [str(SESSIONS[30].astype("datetime64[D]"))]


def test_table_shows_a_few_examples_of_each_kind(lake: Path, b3dist: Callable[..., Outcome]) -> None:
    """Nine problems of one kind are three rows and a count; --examples shows more or none."""
    shown = {number: b3dist("check", "--lake", lake, "--examples", number) for number in (0, 3, 9)}
    for number, outcome in shown.items():
        assert outcome.exit_code == 0
        assert "zero_quote (9)" in outcome.stdout
        assert sum(ticker in outcome.stdout for ticker in NO_QUOTES) == number
    assert "6 more" in shown[3].stdout
    assert "AAAA3" in shown[3].stdout


def test_absent_lake_is_one_sentence(tmp_path: Path, b3dist: Callable[..., Outcome]) -> None:
    """Exit code 1 with error and hint."""
    outcome = b3dist("check", "--lake", tmp_path / "none", "--json")
    assert outcome.exit_code == 1
    assert set(outcome.answer) == {"error", "hint"}
    assert "none" in outcome.answer["error"]
