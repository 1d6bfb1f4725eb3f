"""Which windows of an asset can be scored: training's rule, without a target."""

from collections.abc import Callable
from datetime import date

import numpy as np
import pytest

from b3dist.config import DataConfig
from b3dist.data.features import INVALID_ROWS
from b3dist.data.windows import Scaler, prepare_asset
from b3dist.errors import DataError, TooFewSessionsError
from b3dist.scoring.rows import AssetRows, adjustment_at, make_rows

Columns = dict[str, np.ndarray]


def rows_of(columns: Columns, calendar: np.ndarray, scaler: Scaler | None = None, basis: float = 1.0) -> AssetRows:
    """Rows of a builder's asset."""
    return make_rows(
        "TEST3",
        columns,
        position=np.searchsorted(calendar, columns["session"]),
        basis=basis,
        scaler=scaler or Scaler(mean=np.zeros(13), scale=np.ones(13)),
        data=DataConfig(),
        warm_up=INVALID_ROWS,
    )


def test_rows_and_windows_are_trainings(asset_columns: Callable[..., Columns]) -> None:
    """Features equal training's to the bit, through a share event and two gaps; its windows are those with a target."""
    whole = asset_columns(600, seed=3)
    whole["adjustment"][:300] = 0.5
    kept = np.r_[0:100, 107:400, 405:600]  # a gap of 8 exchange sessions, and one of 6
    columns = {name: values[kept] for name, values in whole.items()}
    config = DataConfig(min_sessions=300)
    data = prepare_asset("TEST3", columns, whole["session"], config)
    basis = adjustment_at(columns["session"], columns["adjustment"], np.datetime64(data.anchor))
    rows = rows_of(columns, whole["session"], data.scaler, float(basis))
    np.testing.assert_array_equal(rows.features, data.features)
    ends = np.concatenate([part.ends for part in (data.train, data.val, data.test)])
    assert rows.usable[ends].all()
    assert rows.usable.sum() >= len(ends) + data.dropped["target_gap"] + data.dropped["purge"]
    assert np.isfinite(rows.features[rows.usable]).all()


def test_a_gap_starts_the_window_anew(asset_columns: Callable[..., Columns]) -> None:
    """After a gap of more than 5 exchange sessions 32 bars are needed; 5 sessions are no gap."""
    whole = asset_columns(300)
    for missing, first_usable in ((4, 200), (5, 231)):
        kept = np.r_[0:200, 200 + missing : 300]
        rows = rows_of({name: values[kept] for name, values in whole.items()}, whole["session"])
        after = np.flatnonzero(rows.usable & (np.arange(len(kept)) >= 200))
        assert after[0] == first_usable
    with pytest.raises(TooFewSessionsError, match="10 sessions since its last gap") as few:
        rows.refuse(209)
    assert (few.value.needed, few.value.found) == (32, 10)


def test_an_impossible_bar_ends_what_can_be_scored(asset_columns: Callable[..., Columns]) -> None:
    """A close of 0 poisons the averages after it, not the rows before it."""
    columns = asset_columns(200)
    sound = rows_of(columns, columns["session"])
    columns["close"][150] = 0.0
    rows = rows_of(columns, columns["session"])
    np.testing.assert_array_equal(rows.features[19:150], sound.features[19:150])
    np.testing.assert_array_equal(rows.usable[:150], sound.usable[:150])
    assert not rows.usable[150:].any()
    with pytest.raises(DataError, match=f"close on {columns['session'][150]} is 0"):
        rows.refuse(160)


def test_adjustment_is_that_of_the_last_bar_before(asset_columns: Callable[..., Columns]) -> None:
    """Any day has one: between bars that of the bar before, before all bars that of the first."""
    sessions = np.array(["2015-01-02", "2015-01-05", "2015-01-09"], dtype="datetime64[D]")
    adjustment = np.array([0.25, 0.5, 1.0])
    days = [date(2014, 1, 1), date(2015, 1, 2), date(2015, 1, 8), date(2015, 1, 9), date(2020, 1, 1)]
    found = adjustment_at(sessions, adjustment, np.array(days, dtype="datetime64[D]"))
    np.testing.assert_array_equal(found, [0.25, 0.25, 0.5, 1.0, 1.0])
