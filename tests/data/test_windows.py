"""Windows are ordered, disjoint after the purge, cross no gap, and stand at the anchor's basis."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from b3dist.config import DataConfig
from b3dist.data.features import INVALID_ROWS
from b3dist.data.windows import AssetData, fit_scaler, prepare_asset
from b3dist.errors import DataError, InsufficientDataError
from tests.conftest import Columns, make_columns


def prepare(columns: Columns, calendar: np.ndarray | None = None, **settings_: object) -> AssetData:
    config = DataConfig(**{"min_sessions": 100, **settings_})  # type: ignore[arg-type]
    return prepare_asset("TEST3", columns, columns["session"] if calendar is None else calendar, config)


@given(rows=st.integers(150, 400), horizon=st.integers(1, 6), lookback=st.integers(2, 40), fraction=st.floats(0.3, 0.7))
@settings(max_examples=40)
def test_parts_are_ordered_and_no_target_reaches_the_next(
    rows: int, horizon: int, lookback: int, fraction: float
) -> None:
    """Every target of a part lies before the first last-seen session of the next part."""
    data = prepare(make_columns(rows), horizon=horizon, lookback=lookback, train_fraction=fraction)
    assert data.train.ends[-1] + horizon < data.val.ends[0]
    assert data.val.ends[-1] + horizon < data.test.ends[0]
    assert data.test.ends[-1] + horizon == rows - 1
    for part in (data.train, data.val, data.test):
        assert (np.diff(part.ends) > 0).all()
    assert data.train.ends[0] == INVALID_ROWS + lookback - 1
    total = len(data.train) + len(data.val) + len(data.test) + data.dropped["purge"]
    assert total == rows - INVALID_ROWS - lookback + 1 - horizon


def test_windows_and_targets_across_a_gap_are_dropped_and_counted() -> None:
    """With six missing exchange sessions after row 100, no window and no target spans them; five missing are fine."""
    calendar = make_columns(306)["session"]
    columns = make_columns(300)
    columns["session"] = np.delete(calendar, np.arange(101, 107))
    data = prepare(columns, calendar)
    assert (data.dropped["window_gap"], data.dropped["target_gap"]) == (31, 2)
    for part in (data.train, data.val, data.test):
        assert not ((part.ends >= 99) & (part.ends < 132)).any()
    columns["session"] = np.delete(calendar, np.arange(101, 105))[:300]
    assert prepare(columns, calendar).dropped["window_gap"] == 0


def test_prices_stand_at_the_anchors_basis() -> None:
    """A split after the training part changes nothing: later prices are put on the basis of the anchor."""
    plain = make_columns(300)
    split = {name: values.copy() for name, values in plain.items()}
    for name in ("open", "high", "low", "close", "best_bid", "best_ask"):
        split[name][250:] /= 2
    split["quantity"][250:] *= 2
    split["adjustment"][:250] = 0.5
    expected, found = prepare(plain), prepare(split)
    np.testing.assert_allclose(found.close, expected.close)
    np.testing.assert_allclose(found.features[INVALID_ROWS:], expected.features[INVALID_ROWS:], atol=1e-4)
    assert found.anchor == plain["session"][found.train.ends[-1]].astype(object)


def test_the_scaler_sees_training_rows_only_and_equals_sklearn() -> None:
    """Rows after the anchor do not move mean or scale, which are StandardScaler's."""
    columns = make_columns(300)
    data = prepare(columns)
    later = {name: values.copy() for name, values in columns.items()}
    later["close"][data.train.ends[-1] + 1 :] *= 3
    np.testing.assert_array_equal(prepare(later).scaler.mean, data.scaler.mean)
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(5, 3, 500), np.full(500, 7.0), rng.normal(0, 1e-6, 500)])
    ours, oracle = fit_scaler(features), StandardScaler().fit(features)
    np.testing.assert_allclose(ours.mean, oracle.mean_, rtol=1e-12)
    np.testing.assert_allclose(ours.scale, oracle.scale_, rtol=1e-9)


def test_from_and_to_limit_the_sessions_used() -> None:
    """No window starts before --from or has a target after --to."""
    columns = make_columns(400)
    first, last = (columns["session"][row].astype(object) for row in (100, 350))
    data = prepare(columns, from_session=first, to_session=last)
    assert data.train.ends[0] - 31 == 100
    assert data.test.ends[-1] + 2 == 350
    assert len(data.sessions) == 351


@pytest.mark.parametrize(
    ("rows", "settings_", "message"),
    [
        (90, {}, "has 90 sessions, expected at least 100"),
        (300, {"min_sessions": 1000}, "has 300 sessions, expected at least 1000"),
        (300, {"from_session": date(2030, 1, 2)}, "has 0 sessions"),
        (101, {"lookback": 80}, "too few for a"),
    ],
)
def test_too_little_history_is_a_skip_with_a_reason(rows: int, settings_: dict[str, object], message: str) -> None:
    """Short histories raise InsufficientDataError naming the counts."""
    with pytest.raises(InsufficientDataError, match=message):
        prepare(make_columns(rows), **settings_)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ((20, 300), r"no train part: .* none with its target before the calendar cut {0}"),
        ((395, 397), r"no val part: .* none within the calendar cut {0} to {1}"),
        ((200, 399), r"no test part: .* none from the calendar cut {1} on"),
    ],
)
def test_a_calendar_cut_that_leaves_a_part_empty_is_the_reason(cut: tuple[int, int], message: str) -> None:
    """Not too few windows: it says where they end and where the cut is."""
    columns = make_columns(400)
    days = [columns["session"][row].astype(object) for row in cut]
    with pytest.raises(InsufficientDataError, match=message.format(*days)) as refused:
        prepare(columns, validation_from=days[0], test_from=days[1])
    assert f"windows end between {columns['session'][50]} and {columns['session'][397]}" in refused.value.message


def test_a_price_that_never_moves_is_a_skip() -> None:
    """A constant close has nothing to learn from."""
    columns = make_columns(300)
    columns["close"][:] = 3.0
    with pytest.raises(InsufficientDataError, match="never moves"):
        prepare(columns)


def test_targets_over_cash_ex_dates_are_marked() -> None:
    """The windows whose target spans the session a dividend mark appears on are flagged, and no others."""
    columns = make_columns(300)
    columns["distribution_number"][280:] = 101
    columns["ex_mark"][280:288] = "ED"
    data = prepare(columns)
    assert data.test.ends[data.test.spans_cash].tolist() == [278, 279]
    assert not data.train.spans_cash.any()


@pytest.mark.parametrize("name", ["open", "close"])
def test_a_price_of_zero_is_named(name: str) -> None:
    """Features and returns divide by open and close: the session is said, instead of a loss that is no number."""
    columns = make_columns(300)
    columns[name][250] = 0.0
    with pytest.raises(DataError, match=rf"{name} on \d{{4}}-\d\d-\d\d is 0 \(1 such"):
        prepare(columns)
