"""Renames: a user's list, joined histories, and proposals that are right and few."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from b3dist.data.adjust import find_share_events
from b3dist.data.renames import apply_renames, propose_renames, read_renames
from b3dist.errors import DataError
from tests.data.market_builder import SESSIONS, asset_bars, market_bars, standing


def noisy(ticker: str, *, seed: int, present: range, price: float = 40.0, turnover: float = 1.0) -> pd.DataFrame:
    """A random walk of 1 % a session, seeded, on the sessions `present`."""
    moves = np.random.default_rng(seed).normal(0, 0.01, len(SESSIONS))
    returns = {session: float(move) for session, move in enumerate(moves)}
    bars = asset_bars(ticker, returns=returns, price=price, present=present, dismes_grows_at=())
    return bars.assign(turnover_brl=bars["turnover_brl"] * turnover)


def renamed(old: str, new: str, *, seed: int, at: int) -> pd.DataFrame:
    """One walk under two tickers, two ISINs and two names."""
    return pd.concat(
        [noisy(old, seed=seed, present=range(at)), noisy(new, seed=seed, present=range(at, len(SESSIONS)))]
    )


def renames_of(*rows: tuple[str, str, int]) -> pd.DataFrame:
    """The frame read_renames returns."""
    return pd.DataFrame(
        {"old": [r[0] for r in rows], "new": [r[1] for r in rows], "date": [SESSIONS[r[2]] for r in rows]}
    )


def test_histories_are_joined_under_the_new_ticker() -> None:
    """All sessions are kept, in order, under one ticker."""
    bars = market_bars(renamed("KROT3", "COGN3", seed=1, at=15))
    joined = apply_renames(bars, renames_of(("KROT3", "COGN3", 15)))
    assert "KROT3" not in set(joined["ticker"])
    mine = joined[joined["ticker"] == "COGN3"]
    assert mine["session"].to_numpy().tolist() == SESSIONS.tolist()
    assert len(joined) == len(bars)
    assert joined[["ticker", "session"]].apply(tuple, axis=1).is_monotonic_increasing


def test_chains_end_at_the_last_ticker_whatever_the_order_of_rows() -> None:
    """A to B and later B to C is all C."""
    bars = market_bars(
        noisy("AAAA3", seed=1, present=range(10)),
        noisy("BBBB3", seed=1, present=range(10, 20)),
        noisy("CCCC3", seed=1, present=range(20, 40)),
    )
    joined = apply_renames(bars, renames_of(("BBBB3", "CCCC3", 20), ("AAAA3", "BBBB3", 10)))
    assert (joined["ticker"] == "CCCC3").sum() == 40


def test_a_ticker_handed_out_again_keeps_its_later_bars() -> None:
    """Only sessions before the date move."""
    bars = market_bars(noisy("AAAA3", seed=1, present=range(40)))
    joined = apply_renames(bars, renames_of(("AAAA3", "BBBB3", 12)))
    assert joined["ticker"].value_counts()[["AAAA3", "BBBB3"]].tolist() == [28, 12]


def test_joining_two_assets_is_refused() -> None:
    """A new ticker with bars of its own before the date is another asset, or the date is wrong."""
    bars = market_bars(noisy("AAAA3", seed=1, present=range(20)), noisy("BBBB3", seed=2, present=range(18, 40)))
    with pytest.raises(DataError, match="BBBB3 has 2 bars of its own before 2016-03-29"):
        apply_renames(bars, renames_of(("AAAA3", "BBBB3", 20)))


def test_renames_of_absent_tickers_change_nothing() -> None:
    """A list for the whole exchange serves any lake."""
    bars = market_bars()
    pd.testing.assert_frame_equal(apply_renames(bars, renames_of(("KROT3", "COGN3", 5))), bars, check_dtype=False)


def test_split_on_the_day_of_the_rename_is_found_in_the_joined_history() -> None:
    """A new ISIN starts its own distribution count: mark and step decide there."""
    bars = market_bars(
        asset_bars("AAAA3", factor=10, marks=standing("EB"), dismes_grows_at=()).assign(**{"class": "ON"})
    )
    later = (bars["ticker"] == "AAAA3") & (bars["session"] >= SESSIONS[20])
    bars.loc[later, ["isin", "distribution_number"]] = ["BRBBBBACNOR9", 100]
    assert find_share_events(bars)["factor"].tolist() == [10.0]


def test_rename_is_proposed_by_dates_price_and_turnover() -> None:
    """KROT3 ends, COGN3 begins the next session where it left: proposed with the evidence in words."""
    proposals = propose_renames(market_bars(renamed("KROT3", "COGN3", seed=1, at=20)))
    assert proposals[["old", "new", "date"]].values.tolist() == [["KROT3", "COGN3", pd.Timestamp(SESSIONS[20])]]
    assert "KROT3 ends on" in proposals["detail"][0]
    assert "begins 1 exchange session(s) later" in proposals["detail"][0]


def test_each_ticker_is_matched_once_and_to_its_likeliest_partner() -> None:
    """Two renames on one day at nearby prices are told apart."""
    bars = market_bars(
        noisy("AAAA3", seed=1, present=range(20)),
        noisy("BBBB3", seed=1, present=range(20, 40)),
        noisy("CCCC3", seed=1, present=range(20), price=41.0),
        noisy("DDDD3", seed=1, present=range(20, 40), price=41.0),
    )
    assert propose_renames(bars)[["old", "new"]].values.tolist() == [["AAAA3", "BBBB3"], ["CCCC3", "DDDD3"]]


@pytest.mark.parametrize(
    "other",
    [
        noisy("NEWW3", seed=9, present=range(20, 40), price=25.0),
        noisy("NEWW3", seed=1, present=range(20, 40), turnover=0.05),
        noisy("NEWW4", seed=1, present=range(20, 40)),
        noisy("NEWW3", seed=1, present=range(26, 40)),
        noisy("NEWW3", seed=1, present=range(20, 40, 3)),
        noisy("NEWW3", seed=1, present=range(20, 40)).assign(**{"class": "PN"}),
    ],
    ids=["price", "turnover", "ticker number", "not adjacent", "rarely traded", "class"],
)
def test_listing_beside_a_delisting_is_not_proposed(other: pd.DataFrame) -> None:
    """A new listing just after a delisting that differs in one thing is another company."""
    assert propose_renames(market_bars(noisy("GONE3", seed=1, present=range(20)), other)).empty


def test_ticker_that_may_come_back_is_not_proposed() -> None:
    """A ticker missing on the lake's last sessions has not ended."""
    assert propose_renames(market_bars(renamed("KROT3", "COGN3", seed=1, at=38))).empty


def test_no_bars_have_no_renames() -> None:
    """An empty lake is no failure."""
    empty = market_bars().head(0)
    assert propose_renames(empty).empty
    assert apply_renames(empty, renames_of(("KROT3", "COGN3", 5))).empty


def test_renames_file_is_read(tmp_path: Path) -> None:
    """Rows come back sorted by date, tickers in upper case."""
    path = tmp_path / "renames.csv"
    path.write_text("old,new,date\nkrot3,cogn3,2019-12-13\nBVMF3,B3SA3,2018-03-26\n", encoding="utf-8")
    assert read_renames(path).values.tolist() == [
        ["BVMF3", "B3SA3", pd.Timestamp("2018-03-26")],
        ["KROT3", "COGN3", pd.Timestamp("2019-12-13")],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("old,new\nKROT3,COGN3\n", ":1: column 'date' is missing"),
        ("old,new,date\nKROT3,COGN3,13/12/2019\n", ":2: column 'date': expected the first session of the new ticker"),
        ("old,new,date\nKROT3,KROT3,2019-12-13\n", "KROT3 is renamed to itself"),
        ("old,new,date\nKROT3,COGN3,2019-12-13\nKROT3,COGN4,2019-12-13\n", "KROT3 stands twice as old"),
        ("old,new,date\nKROT3,COGN3,2019-12-13\nESTC3,COGN3,2019-12-13\n", "COGN3 stands twice as new"),
    ],
)
def test_bad_renames_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """What the user has to mend stands in the message."""
    path = tmp_path / "renames.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as refusal:
        read_renames(path)
    assert message in refusal.value.message
