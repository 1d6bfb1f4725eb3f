"""Putting COTAHIST files into a lake: what becomes a bar, and whose session it is."""

import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from b3dist.data.cotahist import FIELD, read_cotahist, write_cotahist
from b3dist.data.lake import Lake
from b3dist.data.lake.ingest import find_files, ingest
from b3dist.errors import ConfigError, DataError, FormatError, LakeError
from tests.data.cotahist_files import DEVELOPMENT, SHORT, WHOLE_MARKET, edited, quotes, write_quotes
from tests.data.lakes import SESSIONS, TICKERS, content, needs_shared, write


def test_bars_are_what_the_file_says(tmp_path: Path) -> None:
    """Every column of a bar comes from its field of the record; prices are per share, sessions ascending."""
    path = write(tmp_path / "COTAHIST_A2024.ZIP", quote_factor=1000, specification="PN *EB  N1")
    result = ingest([path], tmp_path / "lake")
    assert (result.bars, result.tickers, result.classes) == (6, 2, {"PN": 6})
    assert (result.first_session, result.last_session) == (date(2023, 12, 28), date(2024, 1, 3))
    source = read_cotahist(path).query("ticker == 'VALE3'").reset_index(drop=True)
    bars = Lake(tmp_path / "lake").bars("VALE3")
    for name in ("open", "high", "low", "average", "close", "best_bid", "best_ask"):
        np.testing.assert_allclose(bars[name], source[name] / 1000, rtol=1e-15)
    for name in ("session", "trades", "quantity", "turnover_brl", "isin", "name", "distribution_number"):
        pd.testing.assert_series_equal(bars[name], source[name], check_dtype=False)
    assert set(bars["class"] + bars["ex_mark"] + bars["segment"]) == {"PNEBN1"}
    assert set(bars["bdi_code"]) == {2}
    assert set(bars["market"]) == {10}
    assert set(bars["generated"].dt.date) == {date(2024, 1, 3)}


def test_what_each_file_holds_and_took_is_told(tmp_path: Path) -> None:
    """Bars per file add up to the lake's; a ticker without bars in the taken sessions is not laid to the taker."""
    first = write(tmp_path / "COTAHIST_A2023.ZIP")
    other = write_quotes(tmp_path / "COTAHIST_A2022.ZIP", ["OGXP3"], ["2022-05-02"], generated=date(2022, 12, 29))
    taker = write_quotes(tmp_path / "COTAHIST_A2024.ZIP", ["PETR4"], SESSIONS[1:], generated=date(2024, 12, 30))
    last = write_quotes(tmp_path / "COTAHIST_A1.ZIP", ["PETR4"], SESSIONS[:1], generated=date(2024, 12, 30))
    result = ingest([first, other], tmp_path / "lake")
    assert [(file.bars, file.sessions_taken, list(file.tickers_gone)) for file in result.files] == [
        (6, 0, []),
        (1, 0, []),
    ]
    result = ingest([taker, first], tmp_path / "lake")
    assert [(file.bars, file.sessions_taken, list(file.tickers_gone)) for file in result.files] == [
        (2, 2, []),
        (2, 0, []),
    ]
    result = ingest([last], tmp_path / "lake")
    assert [(file.bars, file.sessions_taken, list(file.tickers_gone)) for file in result.files] == [(1, 1, ["VALE3"])]
    assert result.bars == 4


def test_a_renamed_ticker_is_not_gone(tmp_path: Path) -> None:
    """With a file of renames a ticker that disappears was joined to another, not lost."""
    ingest([write(tmp_path / "COTAHIST_A2023.ZIP")], tmp_path / "lake")
    renames = tmp_path / "renames.csv"
    renames.write_text("old,new,date\nVALE3,VALE9,2024-01-04\n")
    newer = write(tmp_path / "COTAHIST_A2024.ZIP", generated=date(2024, 2, 1), seed=1)
    (file,) = ingest([newer], tmp_path / "lake", renames_file=renames).files
    assert Lake(tmp_path / "lake").tickers()["ticker"].tolist() == ["PETR4", "VALE9"]
    assert (file.sessions_taken, list(file.tickers_gone)) == (3, [])


def test_a_bar_that_a_file_holds_twice_is_told(tmp_path: Path) -> None:
    """The last record of a ticker and session counts; how many, which and where the first is, is told."""
    path = write_quotes(tmp_path / "COTAHIST_A2024.TXT", ["PETR4", "VALE3"], SESSIONS, generated=date(2024, 1, 9))
    (file,) = ingest([path], tmp_path / "once").files
    assert file.repeated is None
    assert file.to_dict()["repeated"] == 0
    place = FIELD["ticker"].start
    tickers = [line[place : place + 12] for line in path.read_bytes().split(b"\n")[1:-2]]
    other = next(row for row, ticker in enumerate(tickers) if ticker != tickers[0])
    (file,) = ingest([edited(path, {(2 + other, place): tickers[0]})], tmp_path / "twice").files
    ticker = tickers[0].decode().strip()
    records = read_cotahist(path)
    closes = records.loc[(records["ticker"] == ticker) & (records["session"] == SESSIONS[0]), "close"]
    assert file.repeated is not None
    assert (file.repeated.count, file.repeated.ticker, str(file.repeated.session)) == (1, ticker, SESSIONS[0])
    assert file.repeated.lines == (2, 2 + other)
    assert Lake(tmp_path / "twice").bars(ticker)["close"].iloc[0] == closes.iloc[-1] != closes.iloc[0]


def test_a_known_file_changes_nothing(tmp_path: Path) -> None:
    """Ingesting again, also under another name, leaves the lake as it is to the byte of its manifest."""
    path, lake = write(tmp_path / "COTAHIST_A2024.ZIP"), tmp_path / "lake"
    first = ingest([path], lake)
    before = (lake / "manifest.json").read_bytes()
    copy = path.rename(tmp_path / "copy.zip")
    again = ingest([copy], lake)
    assert [file.status for file in first.files + again.files] == ["ingested", "unchanged"]
    assert (again.files[0].records, again.files[0].kept) == (6, 6)
    assert again.bars == 6
    assert (lake / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("at_once", [True, False])
def test_the_file_generated_last_holds_a_session(tmp_path: Path, order: tuple[int, ...], at_once: bool) -> None:
    """Whole sessions are replaced by the later header date, whatever the order, in one command or several."""
    early = write(tmp_path / "early.TXT", generated=date(2024, 1, 3), seed=1)
    daily = quotes(["PETR4"], ["2024-01-02"], seed=2)
    write_cotahist(tmp_path / "daily.TXT", daily, generated=date(2024, 1, 4))
    other = write_quotes(tmp_path / "other.TXT", ["BBAS3"], ["2024-01-04"], generated=date(2024, 1, 2), seed=3)
    paths = [(early, tmp_path / "daily.TXT", other)[number] for number in order]
    lake = tmp_path / "lake"
    for command in [paths] if at_once else [[path] for path in paths]:
        ingest(command, lake)
    bars = content(lake)
    second = bars[bars["session"] == "2024-01-02"]
    assert second["ticker"].tolist() == ["PETR4"], "VALE3 did not trade on that session, says the later file"
    assert second["close"].tolist() == daily["close"].tolist()
    assert bars.groupby("ticker")["session"].count().to_dict() == {"BBAS3": 1, "PETR4": 3, "VALE3": 2}


def test_files_of_the_same_day_have_a_fixed_winner(tmp_path: Path) -> None:
    """Of two files generated on one day the one with more records holds the session, in both orders."""
    small = write_quotes(tmp_path / "d.TXT", ["PETR4"], SESSIONS[:1], generated=date(2024, 1, 3), seed=1)
    large = write(tmp_path / "a.TXT", generated=date(2024, 1, 3), seed=2)
    for name, order in (("one", [small, large]), ("two", [large, small])):
        for path in order:
            ingest([path], tmp_path / name)
    pd.testing.assert_frame_equal(content(tmp_path / "one"), content(tmp_path / "two"))
    assert len(content(tmp_path / "one")) == 6


def test_only_years_that_change_are_written_again(tmp_path: Path) -> None:
    """A new session leaves the files of other years alone."""
    lake = tmp_path / "lake"
    ingest([write(tmp_path / "a.TXT")], lake)
    before = Lake(lake).manifest.parquet_files
    ingest([write_quotes(tmp_path / "d.TXT", TICKERS, ["2024-01-04"], generated=date(2024, 1, 4))], lake)
    after = Lake(lake).manifest.parquet_files
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_split_adjusts_earlier_years_and_is_listed(tmp_path: Path) -> None:
    """A later file that brings a 2:1 split makes the earlier bars comparable and rewrites their year."""
    lake = tmp_path / "lake"
    old = quotes(["PETR4"], SESSIONS[:1], open=40.0, close=40.0)
    write_cotahist(tmp_path / "a.TXT", old, generated=date(2023, 12, 28))
    ingest([tmp_path / "a.TXT"], lake)
    assert Lake(lake).bars("PETR4")["adjustment"].tolist() == [1.0]
    split = quotes(["PETR4"], SESSIONS[1:], open=20.0, close=20.0, specification="ON  EB  NM", distribution_number=101)
    write_cotahist(tmp_path / "b.TXT", split, generated=date(2024, 1, 3))
    ingest([tmp_path / "b.TXT"], lake)
    assert Lake(lake).bars("PETR4")["adjustment"].tolist() == [0.5, 1.0, 1.0]
    events = Lake(lake).events()
    assert events["ticker"].tolist() == ["PETR4"]
    assert events["ex_date"].tolist() == [pd.Timestamp("2024-01-02")]
    assert events["factor"].tolist() == [2.0]


def test_user_events_and_renames_stay_in_force(tmp_path: Path) -> None:
    """Both are copied into the lake, apply to files ingested later, and can be taken back."""
    lake = tmp_path / "lake"
    renames, events, nothing = tmp_path / "renames.csv", tmp_path / "events.csv", tmp_path / "nothing.csv"
    renames.write_text("old,new,date\nVALE3,ZALE3,2024-01-03\n")
    events.write_text("ticker,ex_date,factor\nZALE3,2024-01-03,4\n")
    nothing.write_text("old,new,date\n")
    first = write_quotes(tmp_path / "a.TXT", ["VALE3"], SESSIONS[:2], generated=date(2024, 1, 2))
    later = write_quotes(tmp_path / "b.TXT", ["ZALE3"], SESSIONS[2:], generated=date(2024, 1, 3))
    ingest([first], lake, events_file=events, renames_file=renames)
    renames.unlink()
    events.unlink()
    assert ingest([later], lake).tickers == 1
    joined = Lake(lake).bars("ZALE3")
    assert joined["session"].tolist() == [pd.Timestamp(session) for session in SESSIONS]
    assert joined["adjustment"].tolist() == [0.25, 0.25, 1.0]
    assert ingest([later], lake, renames_file=nothing).tickers == 2
    assert len(Lake(lake).bars("VALE3")) == 2


def test_universes(tmp_path: Path) -> None:
    """Each universe takes its classes on the cash market and no right, receipt, odd lot or auction."""
    kinds = [  # ticker, ESPECI, CODBDI, TPMERC, universe
        ("ON3", "ON      NM", "02", 10, "shares"),
        ("PN4", "PN  EJ    ", "08", 10, "shares"),
        ("PNB6", "PNB*EB  N1", "05", 10, "shares"),
        ("UNT11", "UNT     N2", "02", 10, "shares"),
        ("FII11", "CI  ER    ", "12", 10, "funds"),
        ("ETF11", "CI        ", "14", 10, "funds"),
        ("BDR34", "DRN ED    ", "02", 10, "bdrs"),
        ("NEW35", "DR3       ", "34", 10, "bdrs"),
        ("RIGHT1", "DIR DEB N1", "02", 10, ""),
        ("REC9", "ON  REC NM", "02", 10, ""),
        ("RECX9", "ON REC    ", "02", 10, ""),
        ("BONUS2", "BNS ORD NM", "22", 10, ""),
        ("ODD3F", "ON      NM", "96", 20, ""),
        ("OPTA1", "ON      NM", "78", 70, ""),
        ("TERM3", "ON      NM", "02", 30, ""),
        ("AUCT3", "ON      NM", "50", 10, ""),
        ("FIDC11", "FIDC      ", "14", 10, ""),
    ]
    frame = quotes([kind[0] for kind in kinds], SESSIONS[:1])
    for number, name in ((1, "specification"), (2, "bdi_code"), (3, "market")):
        frame[name] = [kind[number] for kind in kinds]
    write_cotahist(tmp_path / "a.TXT", frame, generated=date(2024, 1, 3))
    for universe in ("shares", "funds", "bdrs", "all"):
        ingest([tmp_path / "a.TXT"], tmp_path / universe, universe=universe)
        wanted = {kind[0] for kind in kinds if kind[4] and universe in (kind[4], "all")}
        assert set(Lake(tmp_path / universe).tickers()["ticker"]) == wanted
    assert ingest([tmp_path / "a.TXT"], tmp_path / "funds").universe == "funds"
    with pytest.raises(LakeError, match="holds the universe 'funds', not 'all'"):
        ingest([tmp_path / "a.TXT"], tmp_path / "funds", universe="all")
    with pytest.raises(ConfigError, match="unknown universe 'options'"):
        ingest([tmp_path / "a.TXT"], tmp_path / "options", universe="options")


def test_a_bad_file_refuses_the_whole_command(tmp_path: Path) -> None:
    """Nothing is ingested and no lake appears; with keep_going the good file is, and the bad one is reported."""
    good, bad = write(tmp_path / "a.TXT"), write(tmp_path / "b.TXT", seed=1)
    edited(bad, {(3, FIELD["close"].start): b"?"})
    lake = tmp_path / "lake"
    with pytest.raises(FormatError, match=r"b\.TXT, line 3, field close"):
        ingest([good, bad], lake)
    assert not lake.exists()
    result = ingest([good, bad], lake, keep_going=True)
    assert [file.status for file in result.files] == ["ingested", "refused"]
    assert "line 3, field close" in str(result.files[1].error)
    assert result.bars == 6
    assert [file.name for file in Lake(lake).manifest.files] == ["a.TXT"]


def test_a_quote_factor_of_zero_is_refused(tmp_path: Path) -> None:
    """No price can be divided by it."""
    path = edited(write(tmp_path / "a.TXT"), {(5, FIELD["quote_factor"].start): b"0000000"})
    with pytest.raises(FormatError, match="line 5, field quote_factor"):
        ingest([path], tmp_path / "lake")


@pytest.mark.parametrize("ticker", ["../X        ", "..          ", "            ", "A/B3        "])
def test_a_ticker_that_cannot_name_a_folder_is_refused(ticker: str, tmp_path: Path) -> None:
    """A run keeps each asset in a folder of its name: none may lie outside the run."""
    path = edited(write(tmp_path / "a.TXT"), {(5, FIELD["ticker"].start): ticker.encode()})
    with pytest.raises(FormatError, match="line 5, field ticker"):
        ingest([path], tmp_path / "lake")


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_lake_is_named_and_left_alone(damage: str, tmp_path: Path) -> None:
    """An ingest that must read a broken bar file says which, and blames neither the disk nor the new file."""
    lake = tmp_path / "lake"
    ingest([write(tmp_path / "a.TXT")], lake)
    manifest = (lake / "manifest.json").read_bytes()
    bars = lake / Lake(lake).manifest.parquet_files[-1]
    if damage == "cut":
        bars.write_bytes(bars.read_bytes()[:100])
    else:
        bars.unlink()
    with pytest.raises(LakeError, match=bars.name):
        ingest([write(tmp_path / "b.TXT", generated=date(2024, 1, 4), seed=1)], lake)
    assert (lake / "manifest.json").read_bytes() == manifest


def test_folders_and_absent_sources(tmp_path: Path) -> None:
    """In a folder other files are left alone, but a file named COTAHIST is never overlooked; absences are errors."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "events.csv").write_text("ticker\n")
    (folder / "notes.txt").write_text("nothing here\n")
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("other.csv", "a,b\n")
    with pytest.raises(DataError, match="holds no COTAHIST file"):
        find_files([folder])
    year, unnamed = write(folder / "COTAHIST_A2024.zip"), write(folder / "quotes.TXT", seed=1)
    found, ignored = find_files([folder, year])
    assert found == [year, unnamed]
    assert [Path(path).name for path in ignored] == ["events.csv", "notes.txt", "other.zip"]
    (folder / "COTAHIST_A2025.ZIP").write_bytes(b"damaged")
    with pytest.raises(FormatError, match=r"COTAHIST_A2025\.ZIP"):
        ingest([folder], tmp_path / "lake")
    with pytest.raises(DataError, match="there is no file or folder"):
        find_files([tmp_path / "nowhere"])


def test_a_folder_with_other_files_is_not_made_a_lake(tmp_path: Path) -> None:
    """What lies there is left alone."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "notes.txt").write_text("mine")
    with pytest.raises(LakeError, match=r"is no lake and holds other files \(notes\.txt\)"):
        ingest([write(tmp_path / "a.TXT")], home)
    assert [path.name for path in home.iterdir()] == ["notes.txt"]


@needs_shared
def test_the_whole_market_fixture_gives_the_known_counts(tmp_path: Path) -> None:
    """B3's own file of 16 sessions: 6,281 bars of 430 share and unit tickers, OIBR3 (in recovery) among them."""
    result = ingest([WHOLE_MARKET], tmp_path / "lake")
    assert (result.files[0].records, result.bars, result.tickers) == (110_290, 6_281, 430)
    assert sum(result.classes.values()) == 6_281
    assert len(Lake(tmp_path / "lake").bars("OIBR3")) == 16
    assert len(Lake(tmp_path / "lake").calendar()) == 16


@needs_shared
def test_the_development_data_give_the_known_counts(tmp_path: Path) -> None:
    """All bars but the 14 sessions of KLBN11's right; the share events are applied."""
    result = ingest([DEVELOPMENT], tmp_path / "lake")
    assert sum(file.records for file in result.files) == 181_944
    assert (result.bars, result.tickers) == (181_930, 130)
    assert [Path(path).name for path in result.ignored] == ["share_events.csv"]
    lake = Lake(tmp_path / "lake")
    assert lake.bars("KLBN11")["session"].min() > pd.Timestamp("2013-12-31")
    assert len(lake.events()) > 90
    assert (lake.tickers()["num_sessions"] >= 1000).sum() == 105


@needs_shared
def test_the_short_fixture_is_refused_naming_both_counts(tmp_path: Path) -> None:
    """A file whose trailer counts more records than it holds never becomes bars."""
    with pytest.raises(FormatError, match="the trailer says 1745 records, the file holds 506"):
        ingest([SHORT], tmp_path / "lake")
    assert not (tmp_path / "lake").exists()
