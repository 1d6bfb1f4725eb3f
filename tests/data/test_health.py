"""What `check` finds: every kind of problem on constructed bars, and silence where nothing is wrong."""

import numpy as np
import pandas as pd

from b3dist.data.adjust import adjustment_factors, find_share_events
from b3dist.data.exchange import b3_sessions
from b3dist.data.health import COLUMNS, KINDS, WHOLE_LAKE, find_problems
from tests.data.market_builder import asset_bars, market_bars, standing

YEAR = b3_sessions(np.datetime64("2016-01-01"), np.datetime64("2016-12-31"))


def walk(ticker: str, *, seed: int, sessions: np.ndarray = YEAR, price: float = 40.0) -> pd.DataFrame:
    """A year of bars on B3's own sessions: a random walk of 1 % a session, every bar tradable and quoted."""
    moves = np.random.default_rng(seed).normal(0, 0.01, len(sessions))
    close = np.round(price * np.exp(np.cumsum(moves)), 2)
    template = asset_bars(ticker, dismes_grows_at=()).iloc[[0]]
    bars = template.loc[template.index.repeat(len(sessions))].reset_index(drop=True)
    prices = dict.fromkeys(("open", "high", "low", "average", "close"), close)
    return bars.assign(
        **prices,
        session=sessions.astype("datetime64[s]"),
        best_bid=close - 0.01,
        best_ask=close + 0.01,
        turnover_brl=close * 100_000,
        adjustment=1.0,
    )


def year_of_market(*assets: pd.DataFrame) -> pd.DataFrame:
    """The assets among 24 quiet others."""
    others = [walk(f"Z{i:03d}3", seed=i) for i in range(24)]
    return pd.concat([*assets, *others]).sort_values(["ticker", "session"], ignore_index=True)


def problems_of(bars: pd.DataFrame, kind: str) -> list[tuple[str, str, str]]:
    """Ticker, session and detail of one kind."""
    problems = find_problems(bars)
    chosen = problems[problems["kind"] == kind]
    return [(p.ticker, f"{p.session:%Y-%m-%d}", p.detail) for p in chosen.itertuples()]


def test_quiet_year_has_no_problems() -> None:
    """Twenty-five ordinary histories on all of B3's sessions: nothing to look at."""
    assert find_problems(year_of_market(walk("AAAA3", seed=99))).empty


def test_no_bars_have_no_problems() -> None:
    """An empty lake is no failure."""
    assert find_problems(year_of_market().head(0)).empty


def test_missing_sessions_are_listed_as_runs() -> None:
    """Two neighbouring sessions without a file are one entry that says which."""
    bars = year_of_market()
    missing = YEAR[[50, 51, 90]]
    kept = bars[~bars["session"].isin(missing.astype("datetime64[s]"))].reset_index(drop=True)
    found = problems_of(kept, "missing_session")
    assert [(ticker, session) for ticker, session, _ in found] == [
        (WHOLE_LAKE, str(YEAR[50])),
        (WHOLE_LAKE, str(YEAR[90])),
    ]
    assert found[0][2].startswith("2 session(s) held by B3") and found[0][2].endswith(f"{YEAR[50]} to {YEAR[51]}")


def test_sessions_b3_never_held_are_listed() -> None:
    """A bar on Carnival Monday is in the lake but not in B3's calendar."""
    extra = walk("AAAA3", seed=1).head(1).assign(session=np.datetime64("2016-02-08", "s"))
    assert problems_of(year_of_market(extra), "unknown_session") == [
        (WHOLE_LAKE, "2016-02-08", "1 session(s) in the lake but not in B3's calendar: 2016-02-08 to 2016-02-08")
    ]


def test_freak_return_is_measured_against_ticker_and_market() -> None:
    """A jump of 40 % in a 1 % share is freak; the same day everything else is silent."""
    asset = walk("AAAA3", seed=99)
    asset.loc[100:, ["open", "high", "low", "average", "close"]] *= 1.4
    found = problems_of(year_of_market(asset), "freak_return")
    assert [(ticker, session) for ticker, session, _ in found] == [("AAAA3", str(YEAR[100]))]
    assert "+4" in found[0][2] and "beside the market" in found[0][2]


def test_market_crash_is_no_freak_return_of_each_ticker() -> None:
    """All fall 20 % on one day: that is the market."""
    bars = year_of_market(walk("AAAA3", seed=99))
    bars.loc[bars["session"] >= YEAR[100].astype("datetime64[s]"), ["open", "high", "low", "average", "close"]] *= 0.8
    assert problems_of(bars, "freak_return") == []


def test_adjusted_split_is_no_freak_return() -> None:
    """A found split is taken out by the adjustment; the same prices without it are freak."""
    bars = market_bars(asset_bars("AAAA3", factor=2, marks=standing("EB"))).assign(adjustment=1.0)
    adjusted = bars.assign(adjustment=adjustment_factors(bars, find_share_events(bars)))
    assert problems_of(adjusted, "freak_return") == []
    unadjusted = problems_of(bars, "freak_return")
    assert len(unadjusted) == 1
    assert unadjusted[0][2].endswith("ex-mark EB, distribution number grew")


def test_one_tick_of_a_penny_share_is_no_freak_return() -> None:
    """At R$ 0.05 a centavo is 20 %; two centavos at once are no freak either."""
    asset = walk("AAAA3", seed=99)
    for name in ("open", "high", "low", "average", "close"):
        asset[name] = np.where(np.arange(len(asset)) % 40 == 20, 0.07, 0.05)
    assert problems_of(year_of_market(asset), "freak_return") == []


def test_contradicting_prices_are_impossible() -> None:
    """A close above the session's high, and a price of 0."""
    asset = walk("AAAA3", seed=99)
    asset.loc[10, "close"] *= 1.05
    asset.loc[20, ["open", "high", "low", "average", "close"]] = 0.0
    found = problems_of(year_of_market(asset), "impossible_bar")
    assert [(ticker, session) for ticker, session, _ in found] == [("AAAA3", str(YEAR[10])), ("AAAA3", str(YEAR[20]))]


def test_stale_close_is_reported_once_per_run_with_its_length() -> None:
    """Twelve equal closes are one entry at the run's first session; nine are none."""
    asset = walk("AAAA3", seed=99)
    asset.loc[30:41, "close"] = asset.loc[30, "close"]
    asset.loc[80:88, "close"] = asset.loc[80, "close"]
    for name in ("open", "high", "low", "average"):
        asset[name] = asset["close"]
    ((ticker, session, detail),) = problems_of(year_of_market(asset), "stale_close")
    assert (ticker, session) == ("AAAA3", str(YEAR[30]))
    assert "unchanged in 12 traded bars" in detail and detail.endswith(str(YEAR[41]))


def test_zero_quotes_are_counted_per_ticker() -> None:
    """One entry per ticker, at its first bar without a quote, however many there are."""
    asset = walk("AAAA3", seed=99)
    asset.loc[[5, 6, 7], "best_bid"] = 0.0
    asset.loc[[7, 9], "best_ask"] = 0.0
    assert problems_of(year_of_market(asset), "zero_quote") == [
        ("AAAA3", str(YEAR[5]), f"4 of {len(YEAR)} bars closed without a bid (3) or an ask (2)")
    ]


def test_wrapped_trade_count_is_suspected_from_turnover() -> None:
    """80,000 trades a day; on one busier day 4,000 are printed though the turnover says 104,000."""
    asset = walk("AAAA3", seed=99).assign(trades=80_000)
    asset["turnover_brl"] = 8e8
    asset.loc[120, ["trades", "turnover_brl"]] = [4_000, 10.4e8]
    asset.loc[160, ["trades", "turnover_brl"]] = [4_000, 0.4e8]  # a quiet day: few trades for little money
    ((ticker, session, detail),) = problems_of(year_of_market(asset), "wrapped_trades")
    assert (ticker, session) == ("AAAA3", str(YEAR[120]))
    assert (
        detail == "4,000 trades for R$ 1,040 million, where about 104,000 are usual: 104,000 before the count wrapped?"
    )


def test_block_trade_in_a_sleepy_share_is_no_wrap() -> None:
    """Few trades for much money in a share of 300 trades a day."""
    asset = walk("AAAA3", seed=99).assign(trades=300)
    asset.loc[120, "turnover_brl"] *= 300
    assert problems_of(year_of_market(asset), "wrapped_trades") == []


def test_halt_is_reported_where_windows_break() -> None:
    """Six sessions from bar to bar is a gap, five is not."""
    asset = walk("AAAA3", seed=99).drop(index=[*range(50, 55), *range(90, 94)])
    assert problems_of(year_of_market(asset), "gap") == [
        ("AAAA3", str(YEAR[55]), f"5 exchange sessions without a bar since {YEAR[49]}: no window crosses")
    ]


def test_rename_is_proposed_among_the_problems() -> None:
    """The check names the pair, so that the user can hand it to ingest."""
    asset = walk("KROT3", seed=99)
    asset.loc[100:, ["ticker", "isin", "name"]] = ["COGN3", "BRCOGNACNOR2", "COGNA ON"]
    ((ticker, session, detail),) = problems_of(year_of_market(asset), "rename")
    assert (ticker, session) == ("KROT3", str(YEAR[100]))
    assert "COGN3 begins" in detail


def test_problems_come_in_the_order_of_kinds() -> None:
    """Sorted by kind, ticker and session, whatever the order they were found in."""
    bars = year_of_market(walk("AAAA3", seed=99).drop(index=range(50, 60)), walk("BBBB3", seed=98).assign(best_bid=0.0))
    problems = find_problems(bars[list(COLUMNS)])
    kinds = [list(KINDS).index(kind) for kind in problems["kind"]]
    assert kinds == sorted(kinds)
    assert set(problems["kind"]) == {"zero_quote", "gap"}
    assert problems.columns.tolist() == ["ticker", "session", "kind", "detail"]


def test_calendar_knows_b3s_own_holidays() -> None:
    """Carnival 2018, the day of São Paulo until 2021, Good Friday and the year's last day are no sessions."""
    sessions = set(b3_sessions(np.datetime64("2018-01-01"), np.datetime64("2018-12-31")).astype(str))
    assert sessions.isdisjoint({"2018-01-25", "2018-02-12", "2018-02-13", "2018-03-30", "2018-07-09", "2018-12-31"})
    assert {"2018-02-14", "2018-12-28"} <= sessions
    assert len(sessions) == 245


def test_calendar_ends_where_the_library_does() -> None:
    """Sessions dated by a damaged file far from our time are asked about without an error; B3's are still found."""
    far = b3_sessions(np.datetime64("0001-01-02"), np.datetime64("9999-12-30"))
    assert {np.datetime64("2018-02-14"), np.datetime64("2018-12-28")} <= set(far)
    assert len(b3_sessions(np.datetime64("7018-01-02"), np.datetime64("7018-12-30"))) == 0
