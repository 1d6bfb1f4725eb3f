"""Scores of a caller's own bars: the same as of the lake's, or an error that names field, row and session."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from b3dist.data.features import INPUT_COLUMNS
from b3dist.data.lake import Lake
from b3dist.errors import DataError, TooFewSessionsError, UnknownTickerError
from b3dist.scoring import Scorer
from b3dist.scoring.callers_bars import positions_of
from tests.scoring.test_scorer import numbers

TICKER = "SIMA4"
"""Gives a bonus of 1 in 10 at session 200 of 400."""


@pytest.fixture
def bars(small_lake: Path) -> dict[str, np.ndarray]:
    """The lake's own bars of an asset, as traded."""
    frame = Lake(small_lake).bars(TICKER)
    assert frame["adjustment"].nunique() == 2
    return {name: frame[name].to_numpy() for name in ("session", *INPUT_COLUMNS, "adjustment")}


def newest(bars: dict[str, Any], rows: int) -> dict[str, Any]:
    """The last bars of each column."""
    return {name: values[-rows:] for name, values in bars.items()}


def test_the_lakes_own_bars_score_the_same(scorer: Scorer, bars: dict[str, np.ndarray]) -> None:
    """Whole history or the newest 282 bars, as traded or adjusted to the last of them: the lake's score within 1e-6."""
    adjusted = dict(bars)
    for name in ("open", "high", "low", "close", "best_bid", "best_ask"):
        adjusted[name] = bars[name] * bars["adjustment"]
    adjusted["quantity"] = bars["quantity"] / bars["adjustment"]
    wanted = scorer.score([scorer.locate(TICKER)])
    windows = [
        scorer.window_of_bars(TICKER, bars, adjusted=False, whole_history=True),
        scorer.window_of_bars(TICKER, newest(bars, 282), adjusted=False),
        scorer.window_of_bars(TICKER, adjusted, adjusted=True, whole_history=True),
        scorer.window_of_bars(TICKER, newest(adjusted, 300), adjusted=True),
    ]
    scores = scorer.score(windows)
    np.testing.assert_allclose(numbers(scores), np.repeat(numbers(wanted), 4, axis=0), rtol=0, atol=1e-6)
    assert set(scores["session"].to_pylist()) == {scorer.newest_session}
    assert scores["price"].to_pylist() == wanted["price"].to_pylist() * 4


def test_bars_from_before_a_share_event_are_scored_at_the_anchors_basis(
    scorer: Scorer, bars: dict[str, np.ndarray]
) -> None:
    """Bars that end before the bonus, adjusted to their own last one, get the lake's score of that day."""
    early = {name: values[:150] for name, values in bars.items()}
    window = scorer.window_of_bars(TICKER, early, adjusted=True, whole_history=True)
    wanted = scorer.locate(TICKER, early["session"][-1].astype("datetime64[D]").astype(object))
    np.testing.assert_allclose(window.rows, wanted.rows, rtol=0, atol=1e-6)


def test_dates_may_be_text_and_numbers_lists(scorer: Scorer, bars: dict[str, np.ndarray]) -> None:
    """What JSON delivers is taken as it is."""
    plain: dict[str, Any] = {name: values.tolist() for name, values in bars.items() if name in INPUT_COLUMNS}
    plain["session"] = [str(session)[:10] for session in bars["session"]]
    window = scorer.window_of_bars(TICKER, plain, adjusted=False, whole_history=True)
    np.testing.assert_allclose(window.rows, scorer.locate(TICKER).rows, rtol=0, atol=1e-6)
    assert (window.needed, window.found) == (51, 400)


def test_too_few_bars_say_how_many_are_needed(scorer: Scorer, bars: dict[str, np.ndarray]) -> None:
    """282 with the warm-up of MACD, 51 where the bars are declared the whole history; a gap starts anew."""
    with pytest.raises(TooFewSessionsError, match=r"282 \(32 in the window, 250 before it .* not known") as few:
        scorer.window_of_bars(TICKER, newest(bars, 281), adjusted=False)
    assert (few.value.needed, few.value.found) == (282, 281)
    with pytest.raises(TooFewSessionsError) as few:
        scorer.window_of_bars(TICKER, newest(bars, 50), adjusted=False, whole_history=True)
    assert (few.value.needed, few.value.found) == (51, 50)
    assert scorer.window_of_bars(TICKER, newest(bars, 51), adjusted=False, whole_history=True).found == 51
    gap = {name: np.delete(values, np.s_[380:386]) for name, values in bars.items()}
    with pytest.raises(TooFewSessionsError, match="since its last gap") as few:
        scorer.window_of_bars(TICKER, gap, adjusted=False)
    assert (few.value.needed, few.value.found) == (32, 14)
    with pytest.raises(UnknownTickerError):
        scorer.window_of_bars("NOPE3", bars, adjusted=False)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("close", np.nan, r"close in row 7 \(.*\) is nan, expected a price above 0"),
        ("open", 0.0, r"open in row 7 \(.*\) is 0, expected a price above 0"),
        ("low", -1.0, r"low in row 7 \(.*\) is -1"),
        ("high", np.inf, r"high in row 7 \(.*\) is inf"),
        ("best_bid", -0.01, r"best_bid in row 7 \(.*\) is -0.01, expected a price of 0 \(no quote\) or more"),
        ("quantity", -5.0, r"quantity in row 7 \(.*\) is -5, expected 0 shares or more"),
        ("close", 1e300, r"close in row 7 \(.*\) is 1e\+300.*at most 1e\+12"),
    ],
)
def test_a_bad_value_is_named(scorer: Scorer, bars: dict[str, np.ndarray], field: str, value: float, said: str) -> None:
    """The message has field, row and session."""
    bad = {**bars, field: bars[field].astype(np.float64)}
    bad[field][7] = value
    with pytest.raises(DataError, match=said) as error:
        scorer.window_of_bars(TICKER, bad, adjusted=False)
    assert str(bars["session"][7])[:10] in str(error.value)


def test_bad_columns_are_named(scorer: Scorer, bars: dict[str, np.ndarray]) -> None:
    """A missing, short, wordy, nested or disordered column is refused with its name."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({name: values for name, values in bars.items() if name != "low"}, "have no low"),
        ({**bars, "high": bars["high"][:-1]}, r"high has shape \(399,\), expected 400 values"),
        ({**bars, "close": ["ten"] * 400}, "close is no column of numbers"),
        ({**bars, "session": ["yesterday"] * 400}, "session is no column of dates"),
        ({**bars, "session": bars["session"][:, None]}, "session has 2 dimensions"),
        ({**bars, "session": bars["session"][::-1]}, "session in row 1 is .* not after row 0"),
        ({**bars, "session": bars["session"] - np.timedelta64(365 * 60, "D")}, "expected 1986-01-02 to"),
        ({**bars, "session": [None] * 400}, "session"),
    ]
    for columns, said in wrong:
        with pytest.raises(DataError, match=said):
            scorer.window_of_bars(TICKER, columns, adjusted=False)


def test_features_beyond_any_number_are_refused(scorer: Scorer, bars: dict[str, np.ndarray]) -> None:
    """Allowed values whose ratios overflow do not reach the model."""
    bars["best_bid"] = np.full(400, 1e-300)
    with pytest.raises(DataError, match="beyond any number a model can take"):
        scorer.window_of_bars(TICKER, bars, adjusted=False)


def test_sessions_around_the_lakes_are_counted_by_b3s_calendar() -> None:
    """Christmas and New Year are no sessions, before the lake begins and after it ends."""
    lake = np.array(["2018-12-27", "2018-12-28"], dtype="datetime64[D]")
    days = np.array(["2018-12-20", "2018-12-26", "2018-12-28", "2019-01-02", "2019-01-04"], dtype="datetime64[D]")
    positions = positions_of(days, lake)
    np.testing.assert_array_equal(positions - positions[2], [-4, -2, 0, 1, 3])
    np.testing.assert_array_equal(positions_of(lake, lake), [0, 1])
