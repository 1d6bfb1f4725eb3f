"""Share events, renames and health on the real files of 2012-2018 and January 2021 beside the repository."""

from pathlib import Path

import pandas as pd
import pytest

from b3dist.data.adjust import adjustment_factors, find_share_events
from b3dist.data.health import COLUMNS, find_problems
from b3dist.data.lake import Lake, ingest
from b3dist.data.renames import apply_renames, propose_renames


@pytest.fixture(scope="module")
def lake(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The 130 development tickers."""
    path = tmp_path_factory.mktemp("real") / "lake"
    ingest([shared_data / "cotahist"], path)
    return Lake(path)


@pytest.fixture(scope="module")
def bars(lake: Lake) -> pd.DataFrame:
    """All their bars."""
    return lake.all_bars(COLUMNS)


@pytest.fixture(scope="module")
def known(lake: Lake, shared_data: Path) -> pd.DataFrame:
    """Known and found events side by side: kind, factor, factor_found."""
    oracle = pd.read_csv(shared_data / "cotahist" / "share_events.csv", parse_dates=["ex_date"], keep_default_na=False)
    oracle = oracle.astype({"ex_date": "datetime64[s]"})
    return oracle.merge(lake.events(), on=["ticker", "ex_date"], how="outer", suffixes=("", "_found"))


@pytest.fixture(scope="module")
def problems(bars: pd.DataFrame) -> pd.DataFrame:
    """What check finds in them."""
    return find_problems(bars)


def test_large_share_events_are_all_found_with_their_factor(known: pd.DataFrame) -> None:
    """43 of 43 on their date, 40 within 5 % (39 are required)."""
    large = known[(known["kind"] == "share") & ((known["factor"] >= 1.5) | (known["factor"] <= 0.67))]
    assert len(large) == 43
    assert large["factor_found"].notna().all()
    assert ((large["factor_found"] / large["factor"] - 1).abs() <= 0.05).sum() >= 40


def test_all_share_events_are_found_on_their_date(known: pd.DataFrame) -> None:
    """102 of 102 (92 are required), 98 within 5 %."""
    share = known[known["kind"] == "share"]
    assert share["factor_found"].notna().sum() == len(share) == 102
    assert ((share["factor_found"] / share["factor"] - 1).abs() <= 0.05).sum() >= 98


def test_no_cash_event_and_nothing_else_is_reported(known: pd.DataFrame) -> None:
    """None of 14 cash rows, no others (3 are allowed)."""
    assert (known["kind"] == "cash").sum() == 14
    assert known.loc[known["kind"] == "cash", "factor_found"].isna().all()
    assert known["kind"].notna().all()


def test_found_events_do_not_depend_on_the_years_after_them(lake: Lake, bars: pd.DataFrame) -> None:
    """Cut at the end of 2014, the events until then are the same (causality)."""
    cut = pd.Timestamp("2014-12-31")
    until = bars[bars["session"] <= cut].reset_index(drop=True)
    events = lake.events()
    expected = events[events["ex_date"] <= cut].reset_index(drop=True)
    pd.testing.assert_frame_equal(find_share_events(until), expected, check_dtype=False)


def test_adjusted_prices_step_no_more_than_the_market_allows(lake: Lake, bars: pd.DataFrame) -> None:
    """On all 102 ex-dates the adjusted close moves by less than 30 %; unadjusted by up to a factor of 100."""
    events = lake.events()
    adjusted = bars["close"] * adjustment_factors(bars, events)
    step = adjusted.groupby(bars["ticker"]).pct_change()
    on_ex_dates = (
        bars[["ticker", "session"]]
        .assign(step=step)
        .merge(events, left_on=["ticker", "session"], right_on=["ticker", "ex_date"])
    )
    assert len(on_ex_dates) == 102
    assert on_ex_dates["step"].abs().max() < 0.30


def test_calendar_of_the_files_is_b3s(problems: pd.DataFrame) -> None:
    """The 1,728 sessions of 2012-2018 are B3's, both ways."""
    assert not problems["kind"].isin(["missing_session", "unknown_session"]).any()


def test_freak_prints_show_up(lake: Lake, problems: pd.DataFrame) -> None:
    """MMXM3 and OGXP3 hold freak prints, RAIL3 a splice; no found share event is left among the freaks."""
    freaks = problems[problems["kind"] == "freak_return"]
    assert {"MMXM3", "OGXP3", "RAIL3"} <= set(freaks["ticker"])
    assert 60 <= len(freaks) <= 200
    at_the_splice = freaks[(freaks["ticker"] == "RAIL3") & (freaks["session"] == pd.Timestamp("2017-03-13"))]
    assert "3.97 -> 8.74 (+120.2%)" in at_the_splice["detail"].item()
    events = lake.events()
    assert freaks.merge(events, left_on=["ticker", "session"], right_on=["ticker", "ex_date"]).empty


def test_wrapped_trade_counts_are_suspected(problems: pd.DataFrame) -> None:
    """PETR4 on the busiest days of October 2014: R$ 2.1 billion in 2,277 trades."""
    wraps = problems[problems["kind"] == "wrapped_trades"]
    assert pd.Timestamp("2014-10-08") in set(wraps.loc[wraps["ticker"] == "PETR4", "session"])
    assert len(wraps) <= 100


def test_the_one_rename_in_the_files_is_proposed(bars: pd.DataFrame, problems: pd.DataFrame) -> None:
    """SMLE3 became SMLS3; joined, nothing is left to propose."""
    proposals = propose_renames(bars)
    assert proposals[["old", "new", "date"]].values.tolist() == [["SMLE3", "SMLS3", pd.Timestamp("2017-10-23")]]
    assert (problems["kind"] == "rename").sum() == 1
    assert propose_renames(apply_renames(bars, proposals)).empty


def test_whole_market_has_one_event_and_no_false_rename(shared_data: Path, tmp_path: Path) -> None:
    """430 tickers in 16 sessions, B3's own DISMES: the bonus of BSLI3, nothing else; sessions are B3's."""
    ingest([shared_data / "fixtures" / "COTAHIST_A2021_to_20210126.ZIP"], tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    assert lake.events()[["ticker", "ex_date", "factor"]].values.tolist() == [
        ["BSLI3", pd.Timestamp("2021-01-05"), 9.0]
    ]
    kinds = set(find_problems(lake.all_bars(COLUMNS))["kind"])
    assert "zero_quote" in kinds
    assert not kinds & {"rename", "missing_session", "unknown_session"}
