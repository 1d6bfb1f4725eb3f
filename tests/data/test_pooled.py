"""All assets in one table: no window spans two of them, one calendar cut divides all, scales come from before it."""

import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b3dist.config import DataConfig
from b3dist.data.lake import Lake
from b3dist.data.pooled import OWN_SCALE_ROWS, PooledData, load_pooled, pool_histories
from b3dist.data.windows import History, fit_scaler, prepare_asset, read_history
from b3dist.errors import ConfigError, InsufficientDataError, LakeError
from tests.conftest import make_columns

CALENDAR = np.busday_offset(np.datetime64("2014-01-02"), np.arange(1500), roll="forward")


def history(ticker: str, rows: int, *, seed: int = 0, start: int = 0, **changes: object) -> History:
    """An asset that trades every session from number `start` of the calendar on."""
    columns = make_columns(rows, seed=seed, start=str(CALENDAR[start]))
    return read_history(ticker, {**columns, **changes}, CALENDAR, config())


def config(**changes: object) -> DataConfig:
    return DataConfig(**{"feature_set": "v2", "min_sessions": 60, **changes})  # type: ignore[arg-type]


def market() -> list[History]:
    """A long history, one that ends early, one that starts late, and one listed after the cut."""
    return [
        history("LONG3", 900, seed=1),
        history("GONE3", 400, seed=2),
        history("LATE3", 500, seed=3, start=400),
        history("NEWS3", 120, seed=4, start=780),
    ]


@pytest.fixture(scope="module")
def data() -> PooledData:
    return pool_histories(market(), config())


def last_seen(data: PooledData, name: str) -> np.ndarray:
    """Session of the last row of every window of a part."""
    part = data.part(name)
    rows = part.ends - data.first_rows[part.asset]
    return np.array([data.assets[a].sessions[row] for a, row in zip(part.asset, rows, strict=True)])


def targets(data: PooledData, name: str) -> np.ndarray:
    """Session of the target of every window of a part."""
    part = data.part(name)
    rows = part.ends - data.first_rows[part.asset] + data.config.horizon
    return np.array([data.assets[a].sessions[row] for a, row in zip(part.asset, rows, strict=True)])


@given(fraction=st.floats(0.3, 0.75), horizon=st.integers(1, 5), lookback=st.integers(2, 40))
@settings(max_examples=15)
def test_one_cut_divides_all_assets(fraction: float, horizon: int, lookback: int) -> None:
    """No asset's training target, nor any validation target, reaches a session that any asset is judged on."""
    changes = {"train_fraction": fraction, "horizon": horizon, "lookback": lookback}
    histories = [read_history(h.ticker, h.columns, CALENDAR, config(**changes)) for h in market()]
    pooled = pool_histories(histories, config(**changes))
    validation_from, test_from = np.datetime64(pooled.config.validation_from), np.datetime64(pooled.config.test_from)
    assert targets(pooled, "train").max() < validation_from <= last_seen(pooled, "val").min()
    assert targets(pooled, "val").max() < test_from <= last_seen(pooled, "test").min()
    kept = sum(len(pooled.part(name)) for name in ("train", "val", "test"))
    assert kept + sum(asset.dropped["purge"] for asset in pooled.assets) == sum(len(h.ends) for h in histories)


def test_fractions_are_of_all_windows_together(data: PooledData) -> None:
    """60 / 20 / 20 per cent of the pooled windows, but for the few on the borders."""
    sizes = np.array([len(data.part(name)) for name in ("train", "val", "test")])
    np.testing.assert_allclose(sizes / sizes.sum(), [0.6, 0.2, 0.2], atol=0.02)


def test_windows_stay_within_their_asset_and_rows_are_not_copied(data: PooledData) -> None:
    """Each asset's features are a view of the one table, and its windows read exactly its own rows."""
    for number, asset in enumerate(data.assets):
        assert np.shares_memory(asset.features, data.rows)
        first = data.first_rows[number]
        for name in ("train", "val", "test"):
            part = data.part(name)
            mine = part.asset == number
            np.testing.assert_array_equal(part.ends[mine] - first, asset.part(name).ends)
            starts = part.ends[mine] - data.config.lookback + 1
            assert (starts >= first).all()
            assert (part.ends[mine] < first + len(asset.features)).all()
            np.testing.assert_array_equal(part.future_return[mine], asset.part(name).future_return)
    windows = data.rows[data.train.ends[:, None] - np.arange(data.config.lookback)]
    assert np.isfinite(windows).all()


def test_v2_is_scaled_by_each_assets_own_training_rows(data: PooledData) -> None:
    """As the same asset alone under the same cut; one listed after it gets the scaler of all."""
    named = {asset.ticker: (asset, own) for asset, own in zip(data.assets, data.own_scale, strict=True)}
    alone = prepare_asset("LONG3", make_columns(900, seed=1, start=str(CALENDAR[0])), CALENDAR, data.config)
    asset, own = named["LONG3"]
    assert own
    np.testing.assert_array_equal(asset.features, alone.features)
    assert asset.anchor == alone.anchor
    new, own = named["NEWS3"]
    assert not own
    assert len(new.train) == 0
    assert new.scaler is data.scaler
    assert new.anchor == new.sessions[new.test.ends[0]], "the basis of its first window"


def test_v1_shares_one_scaler() -> None:
    """Levels in BRL and shares mean the same for every asset, as in the published model."""
    pooled = pool_histories(market(), config(feature_set="v1"))
    assert not pooled.own_scale.any()
    assert all(asset.scaler is pooled.scaler for asset in pooled.assets)
    seen = [
        asset.features[19 : np.searchsorted(asset.sessions, np.datetime64(asset.anchor)) + 1]
        for asset in pooled.assets
        if len(asset.train)
    ]
    refitted = fit_scaler(np.concatenate(seen).astype(np.float64))
    np.testing.assert_allclose(refitted.mean, 0, atol=1e-5)
    np.testing.assert_allclose(refitted.scale, 1, atol=1e-5)


def test_too_few_training_rows_are_scaled_by_all() -> None:
    """An asset whose own deviation would be a guess gets the scaler of all, one row more gives it its own."""
    cut = {"validation_from": CALENDAR[600].item(), "test_from": CALENDAR[700].item()}
    for missing, own in ((1, False), (0, True)):
        # Training rows run from row 19 to the last window's end, horizon + 1 sessions before the cut.
        start = 600 - OWN_SCALE_ROWS - 19 - 2 + missing
        histories = [history("LONG3", 900, seed=1), history("SHRT3", 300, seed=5, start=start)]
        assert pool_histories(histories, config(**cut)).own_scale.tolist() == [True, own]


def test_later_sessions_change_nothing_before_them(data: PooledData) -> None:
    """Wild prices after the cut leave every training row, scaler and label as they were."""
    cut = {"validation_from": data.config.validation_from, "test_from": data.config.test_from}
    border = np.datetime64(data.config.validation_from)
    changed = []
    for h in market():
        columns = {name: np.array(values, copy=True) for name, values in h.columns.items()}
        later = h.sessions >= border
        for name in ("open", "high", "low", "close", "best_bid", "best_ask"):
            columns[name][later] *= 3.0
        changed.append(read_history(h.ticker, columns, CALENDAR, config(**cut)))
    other = pool_histories(changed, config(**cut))
    np.testing.assert_array_equal(other.scaler.mean, data.scaler.mean)
    np.testing.assert_array_equal(other.train.ends, data.train.ends)
    np.testing.assert_array_equal(other.train.future_return, data.train.future_return)
    for ours, theirs in zip(data.assets, other.assets, strict=True):
        before = ours.sessions < border
        np.testing.assert_array_equal(ours.features[before], theirs.features[before])


def test_given_cut_is_kept_and_a_half_or_reversed_one_refused() -> None:
    """Both dates in order, or neither."""
    cut = {"validation_from": date(2015, 6, 1), "test_from": date(2016, 6, 1)}
    assert pool_histories(market(), config(**cut)).config == config(**cut)
    for wrong in (
        {"test_from": date(2016, 6, 1)},
        {"validation_from": date(2016, 6, 1), "test_from": date(2015, 6, 1)},
    ):
        with pytest.raises(ConfigError, match="calendar cut"):
            pool_histories(market(), config(**wrong))


def test_cut_beyond_the_data_says_which_part_is_empty() -> None:
    """A clear refusal instead of a model without a test."""
    cut = {"validation_from": date(2015, 6, 1), "test_from": date(2035, 6, 1)}
    with pytest.raises(InsufficientDataError, match="no window for the test part"):
        pool_histories(market(), config(**cut))


def test_asset_with_an_impossible_bar_is_left_out_alone(zero_price_lake: Path) -> None:
    """One open of 0 costs its asset its place in the pool, and no other; it counts as failed, not as skipped."""
    lake = Lake(zero_price_lake)
    tickers = list(lake.tickers()["ticker"])
    pooled = load_pooled(lake, tickers, config())
    assert [asset.ticker for asset in pooled.assets] == sorted(set(tickers) - {"SIMA3"})
    assert not pooled.skipped
    assert list(pooled.failed) == ["SIMA3"]
    assert "open on" in pooled.failed["SIMA3"]
    assert "end before that session with --to" in pooled.failed["SIMA3"]
    with pytest.raises(InsufficientDataError, match=r"1 failed, e\.g\. SIMA3's open on"):
        load_pooled(lake, ["SIMA3"], config())


def test_damaged_lake_is_no_fault_of_one_asset(small_lake: Path, tmp_path: Path) -> None:
    """A model that lacks most of the market without a word would be worse than none."""
    shutil.copytree(small_lake, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    for file in lake.manifest.parquet_files[-1:]:
        (tmp_path / "lake" / file).unlink()
    with pytest.raises(LakeError):
        load_pooled(lake, lake.tickers()["ticker"], config())


def test_lake_is_pooled_whatever_the_order_of_tickers(small_lake: Path) -> None:
    """Short histories are left out with their reason; the order of tickers decides nothing."""
    lake = Lake(small_lake)
    tickers = list(lake.tickers()["ticker"])
    shortest = lake.tickers().set_index("ticker")["num_sessions"]
    settings_ = config(min_sessions=int(shortest.min()) + 1)
    one, other = load_pooled(lake, tickers, settings_), load_pooled(lake, tickers[::-1], settings_)
    np.testing.assert_array_equal(one.rows, other.rows)
    assert [asset.ticker for asset in one.assets] == sorted(set(tickers) - set(one.skipped))
    assert list(one.skipped) == [shortest.idxmin()]
    assert "sessions" in one.skipped[str(shortest.idxmin())]
