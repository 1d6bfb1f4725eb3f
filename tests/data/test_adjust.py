"""Share events on constructed bars, a user's overrides, and the adjustment they add up to."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b3dist.data.adjust import adjustment_factors, find_share_events, override_events, read_events
from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.errors import DataError
from tests.data.market_builder import SESSIONS, asset_bars, market_bars, standing


def events_of(bars: pd.DataFrame) -> list[tuple[str, date, float, str]]:
    """The detected events as plain tuples."""
    return [
        (event.ticker, event.ex_date.date(), round(event.factor, 6), event.mark)
        for event in find_share_events(bars).itertuples()
    ]


def day(session: int) -> date:
    """The date of a constructed session."""
    return SESSIONS[session].item().date()


def test_split_is_found_on_its_date_with_its_factor() -> None:
    """A 2:1 split with EB, a DISMES step and half the price is one event of factor 2."""
    bars = market_bars(asset_bars("AAAA3", factor=2, marks=standing("EB")))
    assert events_of(bars) == [("AAAA3", day(20), 2.0, "EB")]


def test_bonus_is_told_from_the_market_move_of_its_day() -> None:
    """A 10 % bonus on a day the market falls 3 % is 10 %, though the price alone says 13 %."""
    fall = {20: -0.03}
    bars = market_bars(asset_bars("AAAA4", factor=1.1, returns=fall, marks=standing("EB")), returns=fall)
    assert events_of(bars) == [("AAAA4", day(20), 1.1, "EB")]


def test_market_move_over_a_gap_is_taken_out() -> None:
    """A bonus whose ex-date the ticker did not trade on is measured against the market's moves since its last bar."""
    falls = {18: -0.05, 19: -0.05, 20: -0.05}
    asset = asset_bars("AAAA4", factor=1.3, returns=falls, marks=standing("EB"), present=[*range(18), *range(22, 40)])
    assert events_of(market_bars(asset, returns=falls)) == [("AAAA4", day(22), 1.3, "EB")]


def test_crash_without_dismes_change_is_a_crash() -> None:
    """Half the price, even under a standing B mark, is no event while DISMES stands still."""
    bars = market_bars(asset_bars("AAAA3", factor=2, marks=standing("EB"), dismes_grows_at=()))
    assert events_of(bars) == []


def test_cash_event_with_a_large_step_is_no_share_event() -> None:
    """A capital return of 30 % with ED and a DISMES step is cash."""
    bars = market_bars(asset_bars("AAAA3", cash=0.3, marks=standing("ED")))
    assert events_of(bars) == []


def test_cash_event_that_halves_the_price_is_no_share_event() -> None:
    """Not even half the price makes shares of a D."""
    bars = market_bars(asset_bars("AAAA3", cash=0.5, marks=standing("ED")))
    assert events_of(bars) == []


def test_mark_without_a_price_step_is_no_event() -> None:
    """A bonus in another class (EB, DISMES, no step) changes nothing for this ticker."""
    bars = market_bars(asset_bars("AAAA3", marks=standing("EB")))
    assert events_of(bars) == []


def test_reverse_split_is_found_with_a_factor_below_one() -> None:
    """A 1:10 reverse split with EG is an event of factor 0.1."""
    bars = market_bars(asset_bars("AAAA3", factor=0.1, price=1.2, marks=standing("EG")))
    assert events_of(bars) == [("AAAA3", day(20), 0.1, "EG")]


def test_reverse_split_of_a_penny_share_survives_the_size_of_a_tick() -> None:
    """At five centavos one tick is a fifth of the price; 100:1 is still read as 100:1."""
    asset = asset_bars("AAAA3", factor=0.01, price=0.05, returns={20: -0.15}, marks=standing("EG"))
    assert events_of(market_bars(asset)) == [("AAAA3", day(20), 0.01, "EG")]


def test_factor_goes_the_way_of_its_mark() -> None:
    """A B with a rising price and a G with a falling one are not believed."""
    rising = asset_bars("AAAA3", factor=0.5, marks=standing("EB"))
    falling = asset_bars("BBBB3", factor=2, marks=standing("EG"))
    assert events_of(market_bars(rising, falling)) == []


def test_second_letter_added_while_a_mark_stands_is_an_event() -> None:
    """ED stands since four sessions when a split turns it into EDB."""
    marks = {**standing("ED", since=16), **standing("EDB", since=20)}
    asset = asset_bars("AAAA3", factor=5, marks=marks, dismes_grows_at=(16, 20))
    assert events_of(market_bars(asset)) == [("AAAA3", day(20), 5.0, "EDB")]


def test_cash_letter_added_while_a_b_stands_is_no_second_event() -> None:
    """EB stands when a dividend turns it into EDB: one event, on the bonus's date."""
    marks = {**standing("EB", since=20), **standing("EDB", since=24)}
    asset = asset_bars("AAAA3", factor=1.1, returns={24: -0.08}, marks=marks, dismes_grows_at=(20, 24))
    assert events_of(market_bars(asset)) == [("AAAA3", day(20), 1.1, "EB")]


def test_second_split_under_an_unchanged_mark_needs_an_unmistakable_step() -> None:
    """EB stands and DISMES grows again: half the price is a second split, a 5 % fall is not."""
    marks = standing("EB", since=18)
    twice = asset_bars("AAAA3", factor=2, returns={18: 1 / 1.1 - 1}, marks=marks, dismes_grows_at=(18, 20))
    once = asset_bars("BBBB3", factor=1.05, returns={18: 1 / 1.1 - 1}, marks=marks, dismes_grows_at=(18, 20))
    assert events_of(market_bars(twice, once)) == [
        ("AAAA3", day(18), 1.1, "EB"),
        ("AAAA3", day(20), 2.0, "EB"),
        ("BBBB3", day(18), 1.1, "EB"),
    ]


def test_mark_that_came_and_went_during_a_halt_is_made_up_for_by_step_and_dismes() -> None:
    """After a halt longer than a mark stands, DISMES and a step of 10:1 are evidence enough; 1.4 is not."""
    present = [*range(18), *range(32, 40)]
    split = asset_bars("AAAA3", factor=10, present=present)
    cash = asset_bars("BBBB3", cash=0.3, present=present)
    assert events_of(market_bars(split, cash)) == [("AAAA3", day(32), 10.0, "")]


def test_detection_uses_nothing_after_the_ex_dates_opening() -> None:
    """Whatever the bars after the ex-date hold, the events up to it are the same (causality)."""
    bars = market_bars(asset_bars("AAAA3", factor=1.1, marks=standing("EB")), asset_bars("BBBB3", cash=0.3))
    changed = bars.copy()
    later = changed["session"] > SESSIONS[20]
    changed.loc[later, ["open", "close"]] *= 1.37
    changed.loc[changed["session"] >= SESSIONS[20], ["high", "low", "average", "close", "quantity"]] *= 2
    pd.testing.assert_frame_equal(find_share_events(changed), find_share_events(bars))


def test_no_bars_have_no_events() -> None:
    """An empty lake is no failure."""
    empty = market_bars().head(0)
    events = find_share_events(empty)
    assert list(events.columns) == ["ticker", "ex_date", "factor", "mark"]
    assert adjustment_factors(empty, events).shape == (0,)


def test_adjustment_multiplies_all_later_events_of_the_same_ticker() -> None:
    """Rows before two events carry both, rows on an ex-date none of it, other tickers none at all."""
    bars = market_bars(asset_bars("AAAA3"), asset_bars("BBBB3"))
    events = pd.DataFrame(
        {
            "ticker": ["AAAA3", "AAAA3", "QQQQ3"],
            "ex_date": [SESSIONS[10], SESSIONS[20], SESSIONS[20]],
            "factor": [2.0, 0.1, 7.0],
            "mark": ["EB", "EG", ""],
        }
    )
    factors = adjustment_factors(bars, events)
    mine = factors[bars["ticker"] == "AAAA3"]
    np.testing.assert_allclose(mine, [5.0] * 10 + [10.0] * 10 + [1.0] * 20)
    assert (factors[bars["ticker"] != "AAAA3"] == 1).all()


@settings(max_examples=60)
@given(
    factor=st.sampled_from([1.1, 1.2, 1.5, 2, 3, 4, 5, 8, 10, 50, 0.5, 0.2, 0.1, 0.04]),
    step_at=st.integers(2, 38),
    price=st.floats(40, 400),
)
def test_adjusted_prices_show_no_step_at_the_event(factor: float, step_at: int, price: float) -> None:
    """Whatever the ratio and the date, adjusted closes move at the ex-date by no more than rounding to centavos."""
    mark = "EB" if factor > 1 else "EG"
    asset = asset_bars(
        "AAAA3",
        factor=factor,
        step_at=step_at,
        price=price,
        marks=standing(mark, since=step_at),
        dismes_grows_at=(step_at,),
    )
    bars = market_bars(asset)
    adjusted = bars["close"] * adjustment_factors(bars, find_share_events(bars))
    returns = adjusted[bars["ticker"] == "AAAA3"].pct_change().abs().max()
    assert returns < 0.02 / bars.loc[bars["ticker"] == "AAAA3", "close"].min()


def test_events_of_a_simulated_market_are_found_through_files_and_lake(tmp_path: Path) -> None:
    """All events of truth.json and no other, though the market has cash events, halts and 3 % days as well."""
    simulate(tmp_path / "files", assets=30, sessions=700, seed=7)
    ingest([tmp_path / "files"], tmp_path / "lake")
    truth = json.loads((tmp_path / "files" / "truth.json").read_text(encoding="utf-8"))
    expected = {(event["ticker"], event["ex_date"]): event["factor"] for event in truth["events"]}
    found = {(e.ticker, f"{e.ex_date:%Y-%m-%d}"): e.factor for e in Lake(tmp_path / "lake").events().itertuples()}
    assert len(expected) >= 20
    assert found.keys() == expected.keys()
    assert all(abs(found[event] / factor - 1) < 0.05 for event, factor in expected.items())


def test_users_events_replace_add_and_cancel(tmp_path: Path) -> None:
    """A row replaces the detected event of its ticker and date, a factor of 1 cancels it, another date adds one."""
    bars = market_bars(
        asset_bars("AAAA3", factor=2, marks=standing("EB")), asset_bars("BBBB3", factor=2, marks=standing("EB"))
    )
    path = tmp_path / "events.csv"
    path.write_text(
        f"ticker,ex_date,factor,mark,why\naaaa3,{day(20)},2.1,EDB,vendor\nBBBB3,{day(20)},1\n\nCCCC3,{day(5)},0.1,\n",
        encoding="utf-8",
    )
    merged = override_events(find_share_events(bars), read_events(path))
    assert merged.values.tolist() == [
        ["AAAA3", pd.Timestamp(day(20)), 2.1, "EDB"],
        ["CCCC3", pd.Timestamp(day(5)), 0.1, ""],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ticker,ex_date\n", ":1: column 'factor' is missing"),
        ("", ":1: column 'ticker' is missing"),
        ("ticker,ex_date,factor\nAAAA3,2016-13-01,2\n", ":2: column 'ex_date': expected a date"),
        ("ticker,ex_date,factor\nAAAA3,2016-01-04,2\nAAAA4,2016-01-04,-2\n", ":3: column 'factor': expected"),
        ("ticker,ex_date,factor\nAAAA3,2016-01-04,nan\n", ":2: column 'factor': expected"),
        ("ticker,ex_date,factor\nAAAA3,2016-01-04,1e-308\n", ":2: column 'factor': expected"),
        ("ticker,ex_date,factor\nAAAA3,2016-01-04\n", ":2: column 'factor': expected"),
        ("ticker,ex_date,factor\nA A,2016-01-04,2\n", ":2: column 'ticker': expected a ticker"),
        ("ticker,ex_date,factor\nAAAA3,2016-01-04,2,EB,1,2\n", ":2: expected 3 values"),
        ("ticker,ex_date,factor\nAAAA3,2016-01-04,2\nAAAA3,2016-01-04,3\n", "AAAA3 has two rows for 2016-01-04"),
    ],
)
def test_bad_rows_are_refused_naming_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    """What the user has to mend stands in the message."""
    path = tmp_path / "events.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as refusal:
        read_events(path)
    assert message in refusal.value.message
    assert str(path) in refusal.value.message


def test_absent_or_binary_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """No file and a Parquet file both end in a DataError, not a traceback."""
    with pytest.raises(DataError, match="cannot read"):
        read_events(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"PAR1\xff\xfe\x00")
    with pytest.raises(DataError, match="not a UTF-8 CSV file"):
        read_events(tmp_path / "binary.csv")
