"""Reading a lake."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from b3dist.data.lake import Lake, ingest
from b3dist.data.lake.yearfiles import ROW_GROUP_ROWS
from b3dist.data.schema import BARS
from b3dist.errors import LakeError
from tests.data.cotahist_files import quotes, write_quotes

SESSIONS = ["2022-12-29", "2023-01-02", "2023-01-03", "2023-01-04"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two years and so many tickers that a year fills several row groups."""
    folder = tmp_path_factory.mktemp("lake")
    tickers = [f"A{number:03d}3" for number in range(ROW_GROUP_ROWS // 2)]
    path = write_quotes(folder / "a.TXT", tickers, SESSIONS, generated=date(2023, 1, 4))
    ingest([path], folder / "lake")
    return folder / "lake"


def test_one_asset_is_the_same_alone_and_among_all(lake: Path) -> None:
    """Slices through row groups and years give exactly the rows of the whole table."""
    opened, everything = Lake(lake), Lake(lake).all_bars()
    assert everything.columns.tolist() == BARS.names
    assert everything[["ticker", "session"]].apply(tuple, axis=1).is_monotonic_increasing
    for ticker in ("A0003", "A5123", "A6823", "A6833", "A10233"):
        alone = everything[everything["ticker"] == ticker].reset_index(drop=True)
        assert len(alone) == 4
        pd.testing.assert_frame_equal(opened.bars(ticker), alone)
    columns = ["close", "session", "quantity"]
    pd.testing.assert_frame_equal(opened.bars("A5123", columns), opened.bars("A5123")[columns])
    pd.testing.assert_frame_equal(opened.all_bars(columns), everything[columns])


def test_tickers_and_calendar(lake: Path) -> None:
    """What is there and when, without reading bars."""
    tickers = Lake(lake).tickers()
    assert tickers.columns.tolist() == ["ticker", "num_sessions", "first_session", "last_session"]
    assert tickers["ticker"].is_monotonic_increasing
    assert set(tickers["num_sessions"]) == {4}
    assert set(tickers["first_session"]) == {pd.Timestamp("2022-12-29")}
    assert set(tickers["last_session"]) == {pd.Timestamp("2023-01-04")}
    np.testing.assert_array_equal(Lake(lake).calendar(), np.array(SESSIONS, dtype="datetime64[D]"))


def test_types(lake: Path) -> None:
    """Sessions are datetime64[s], texts strings, prices floats."""
    kinds = Lake(lake).bars("A0003").dtypes.astype(str)
    assert kinds["session"] == kinds["generated"] == "datetime64[s]"
    assert kinds["ticker"] == "str"
    assert kinds["close"] == kinds["adjustment"] == "float64"
    assert Lake(lake).events().columns.tolist() == ["ticker", "ex_date", "factor", "mark"]
    assert str(Lake(lake).events().dtypes["ex_date"]) == "datetime64[s]"


def test_sessions_without_bars_of_the_universe_are_in_the_calendar(tmp_path: Path) -> None:
    """A session on which only options traded is a session; a lake may even hold no bar at all."""
    path = write_quotes(tmp_path / "a.TXT", ["PETRA1"], SESSIONS, generated=date(2023, 1, 4), market=70)
    result = ingest([path], tmp_path / "lake")
    assert (result.bars, result.tickers, result.first_session) == (0, 0, None)
    lake = Lake(tmp_path / "lake")
    assert len(lake.calendar()) == 4
    assert lake.tickers().empty
    assert lake.all_bars().columns.tolist() == BARS.names
    assert lake.events().empty


def test_unknown_tickers_and_columns_are_named(lake: Path) -> None:
    """Asking for what is not there is an error that says so."""
    with pytest.raises(LakeError, match="no bars of XXXX3"):
        Lake(lake).bars("XXXX3")
    with pytest.raises(LakeError, match="no column closing"):
        Lake(lake).bars("A0003", ["closing"])


def test_an_open_lake_outlives_the_next_ingest(tmp_path: Path) -> None:
    """A reader that opened the lake before an ingest reads on; after a second one it is told to open it again."""
    path = tmp_path / "lake"
    for number, generated in enumerate((date(2023, 1, 4), date(2023, 1, 5), date(2023, 1, 6))):
        source = write_quotes(tmp_path / f"{number}.TXT", ["PETR4"], SESSIONS, generated=generated, seed=number)
        expected = quotes(["PETR4"], SESSIONS, seed=0)["close"].tolist()
        ingest([source], path)
        if number == 0:
            reader = Lake(path)
        if number < 2:
            assert reader.bars("PETR4")["close"].tolist() == expected
            reader._files.clear()  # as if it had read nothing yet
    with pytest.raises(LakeError, match="changed twice"):
        reader.bars("PETR4")
    assert Lake(path).manifest_hash != reader.manifest_hash


def test_absent_damaged_and_foreign_lakes_are_refused(tmp_path: Path) -> None:
    """No lake, a broken manifest, another schema version, a broken Parquet file: one sentence each."""
    with pytest.raises(LakeError, match="there is no lake"):
        Lake(tmp_path / "nothing")
    source = write_quotes(tmp_path / "a.TXT", ["PETR4"], SESSIONS, generated=date(2023, 1, 4))
    path = tmp_path / "lake"
    ingest([source], path)
    manifest = path / "manifest.json"
    good = manifest.read_text()
    bars = path / Lake(path).manifest.parquet_files[0]
    bars.write_bytes(bars.read_bytes()[:100])
    with pytest.raises(LakeError, match="is damaged"):
        Lake(path).bars("PETR4")
    manifest.write_text(json.dumps({**json.loads(good), "schema_version": 99}))
    with pytest.raises(LakeError, match="schema version 99"):
        Lake(path)
    for damaged in (good[:50], "[]", "{}", json.dumps({**json.loads(good), "files": [{"name": "x"}]})):
        manifest.write_text(damaged)
        with pytest.raises(LakeError, match="is damaged"):
            Lake(path)
