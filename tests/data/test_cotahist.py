"""COTAHIST reader and writer."""

import gzip
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from b3dist.data.cotahist import FIELD, FIELDS, RECORD_LENGTH, Field, iter_cotahist, read_cotahist, write_cotahist
from b3dist.errors import DataError, FormatError
from tests.data.cotahist_files import LF_FILE, ONE_SESSION, SHARED, SHORT, WHOLE_MARKET, edited, quotes, write_quotes

GENERATED = date(2024, 1, 5)
SESSIONS = ["2024-01-02", "2024-01-03", "2024-01-04"]
needs_fixtures = pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not there")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A valid file of 6 records: lines 2 to 7, trailer in line 8."""
    return write_quotes(tmp_path / "COTAHIST_A2024.TXT", ["PETR4", "VALE3"], SESSIONS, generated=GENERATED)


def values_of(field: Field) -> st.SearchStrategy[object]:
    """Any value a field can hold."""
    if field.kind == "date":
        return st.dates(date(1900, 1, 1), date(9999, 12, 31)).map(lambda day: np.datetime64(day, "s"))
    if field.kind == "text":
        printable = st.characters(min_codepoint=32, max_codepoint=255)
        return st.text(printable, max_size=field.width).map(lambda text: text.rstrip(" "))
    limit = 10 ** min(field.width, 15 if field.kind == "decimal" else 18)
    if field.kind == "decimal":
        return st.integers(0, limit - 1).map(lambda units: units / 10**field.decimals)
    widest = {"strike_correction": 9, "market": 999, "distribution_number": 999}.get(field.name, limit - 1)
    return st.integers(0, widest)


record_tables = st.lists(st.tuples(*(values_of(field) for field in FIELDS)), min_size=1, max_size=20).map(
    lambda rows: pd.DataFrame(rows, columns=[field.name for field in FIELDS])
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(table=record_tables, suffix=st.sampled_from([".TXT", ".zip", ".TXT.GZ"]))
def test_what_was_written_is_read_back(table: pd.DataFrame, suffix: str, tmp_path: Path) -> None:
    """Any table of legal values survives writing and reading: same values, same order."""
    path = tmp_path / f"COTAHIST_A2024{suffix}"
    assert write_cotahist(path, table, generated=GENERATED) == len(table)
    pd.testing.assert_frame_equal(read_cotahist(path), table, check_dtype=False)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("tail", [b"", b"\r\n\x1a", b"\n\n"])
def test_both_line_ends_and_a_dos_tail_are_read(small: Path, line_end: bytes, tail: bytes) -> None:
    """LF, CRLF, no line end after the trailer and the DOS end-of-file byte change nothing."""
    expected = read_cotahist(small)
    small.write_bytes(small.read_bytes().replace(b"\r\n", line_end).rstrip(b"\r\n") + tail)
    pd.testing.assert_frame_equal(read_cotahist(small), expected)


def test_latin_1_names_and_an_absent_expiry_are_read(tmp_path: Path) -> None:
    """Accented names come back as text, an expiry of zeros as no date."""
    path = tmp_path / "COTAHIST_D04012024.TXT"
    frame = quotes(["AÇÃO3"], SESSIONS[:1], name="COMPANHIA ÉÑ", expiry=np.datetime64("NaT", "s"))
    write_cotahist(path, frame, generated=GENERATED)
    read = read_cotahist(path)
    assert read.loc[0, "name"] == "COMPANHIA ÉÑ"
    assert read.loc[0, "ticker"] == "AÇÃO3"
    assert read["expiry"].isna().all()


def test_types_are_the_documented_ones(small: Path) -> None:
    """Dates are datetime64[s], prices float64, whole numbers integers, texts strings."""
    kinds = read_cotahist(small).dtypes.astype(str)
    assert kinds["session"] == kinds["expiry"] == "datetime64[s]"
    assert kinds["close"] == kinds["turnover_brl"] == "float64"
    assert kinds["quantity"] == "int64"
    assert kinds["ticker"] == kinds["bdi_code"] == "str"


def test_the_same_records_give_the_same_bytes(small: Path, tmp_path: Path) -> None:
    """No clock enters an archive, so that ingest can recognise a file by its hash."""
    frame = read_cotahist(small)
    for suffix in (".ZIP", ".TXT.gz"):
        one, other = tmp_path / f"one{suffix}", tmp_path / "other" / f"one{suffix}"
        other.parent.mkdir(exist_ok=True)
        write_cotahist(one, frame, generated=GENERATED)
        write_cotahist(other, frame, generated=GENERATED)
        assert one.read_bytes() == other.read_bytes()


ISIN = b"BRCOMPACNOR1"
CORRUPTIONS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a byte too few": (lambda raw: raw.replace(ISIN, ISIN[1:], 1), "line 2, record length: expected 245, got 244"),
    "a byte too many": (lambda raw: raw.replace(ISIN, ISIN + b"2", 1), "line 2, record length: expected 245, got 246"),
    "trailer cut short": (lambda raw: raw[:-100], "line 8, record length: expected 245, got 147"),
    "trailer missing": (lambda raw: raw[: 247 * 7], "line 8: expected a trailer"),
    "file cut inside a record": (lambda raw: raw[: 247 * 4 + 60], "line 5, record length: expected 245, got 60"),
    "something after the trailer": (lambda raw: raw + b"x", "line 9, end of file"),
    "no header": (lambda raw: raw[247:], "line 1, record type: expected 00"),
    "empty": (lambda raw: raw[:0], "empty file"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_wrong_structure_is_refused(small: Path, name: str) -> None:
    """Records of another length, a missing or misplaced header or trailer: one error with the line."""
    corrupt, message = CORRUPTIONS[name]
    small.write_bytes(corrupt(small.read_bytes()))
    with pytest.raises(FormatError) as refusal:
        read_cotahist(small)
    assert message in str(refusal.value)
    assert "COTAHIST_A2024.TXT" in str(refusal.value)


EDITS = [
    ((4, 0), b"02", "line 4, record type: expected 01 or 99, got '02'"),
    ((1, 0), b"01", "line 1, record type: expected 00"),
    ((1, 2), b"X", "line 1, file name"),
    ((1, 15), b"NYSE", "line 1, origin"),
    ((1, 23), b"20241301", "line 1, date of generation"),
    ((5, 2), b"20230229", "line 5, field session (DATA DO PREGAO): expected a date YYYYMMDD, got '20230229'"),
    ((5, 2), b"2023022X", "line 5, field session (DATA DO PREGAO): expected 8 digits"),
    ((5, 202), b"20240431", "line 5, field expiry (DATVEN): expected a date YYYYMMDD, got '20240431'"),
    ((6, 12), b"\x00", "line 6, field ticker (CODNEG): expected printable characters"),
    ((6, 100), b"\n", "line 6, record length"),
    ((8, 31), b"00000000009", "line 8: the trailer says 9 records, the file holds 8"),
    ((8, 31), b"0000000000X", "line 8, record count of the trailer: expected 11 digits"),
    ((8, 11), b"2023", "line 8, file name of the trailer"),
    ((8, 23), b"20240104", "line 8, date of the trailer"),
]


@pytest.mark.parametrize(("where", "new", "message"), EDITS)
def test_a_wrong_byte_is_refused(small: Path, where: tuple[int, int], new: bytes, message: str) -> None:
    """One corrupted place gives one error naming file, line and field, what was expected and found."""
    with pytest.raises(FormatError) as refusal:
        read_cotahist(edited(small, {where: new}))
    assert message in str(refusal.value)
    assert str(small) in str(refusal.value)


@pytest.mark.parametrize("name", [field.name for field in FIELDS if field.kind != "text"])
def test_a_letter_in_any_digit_of_any_number_is_refused(small: Path, name: str) -> None:
    """Every byte of every number and date field is verified."""
    field, original = FIELD[name], small.read_bytes()
    for column in range(field.start, field.end):
        small.write_bytes(original)
        with pytest.raises(FormatError) as refusal:
            read_cotahist(edited(small, {(3, column): b"A"}))
        assert f"line 3, field {field.title}" in str(refusal.value)


def test_a_bad_record_far_into_the_file_is_named_by_its_line(tmp_path: Path) -> None:
    """Line numbers stay right beyond the first block of records."""
    tickers = [f"T{number:03d}3" for number in range(1000)]
    path = write_quotes(tmp_path / "COTAHIST_A2024.TXT", tickers, SESSIONS * 3, generated=GENERATED)
    assert sum(len(frame) for frame in iter_cotahist(path)) == 9000
    with pytest.raises(FormatError, match="line 8765, field trades"):
        read_cotahist(edited(path, {(8765, FIELD["trades"].start): b" "}))


def test_damaged_archives_are_refused(small: Path, tmp_path: Path) -> None:
    """Truncated or foreign ZIP and gz files give one sentence, not the error of the unpacking library."""
    frame = read_cotahist(small)
    for suffix in (".ZIP", ".TXT.gz"):
        whole = tmp_path / f"COTAHIST_A2024{suffix}"
        write_cotahist(whole, frame, generated=GENERATED)
        content = whole.read_bytes()
        for damaged in (content[: len(content) // 2], content[:-3], b"not an archive"):
            whole.write_bytes(damaged)
            with pytest.raises(FormatError, match="damaged or truncated"):
                read_cotahist(whole)
    flipped = tmp_path / "flipped.ZIP"
    with zipfile.ZipFile(flipped, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("COTAHIST_A2024.TXT", small.read_bytes())
    flipped.write_bytes(flipped.read_bytes().replace(b"COMPANHIA", b"COMPANHIB", 1))
    with pytest.raises(FormatError, match="CRC"):
        read_cotahist(flipped)


def test_other_compressions_and_encryption_are_told_apart(small: Path, tmp_path: Path) -> None:
    """A broken LZMA member is damage; an encrypted one is whole, and the remedy is to unpack it."""
    path = tmp_path / "COTAHIST_A2024.ZIP"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.write(small, "a.TXT")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2] = bytes(byte ^ 0xFF for byte in content[middle : middle + 2])
    path.write_bytes(content)
    with pytest.raises(FormatError, match="damaged or truncated"):
        read_cotahist(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(small, "a.TXT")
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flags of the member, before it and in the directory
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="is encrypted"):
        read_cotahist(path)


def test_a_zip_of_several_files_is_refused(small: Path, tmp_path: Path) -> None:
    """B3 packs one file per ZIP; which of several is meant is not guessed."""
    several = tmp_path / "COTAHIST_A2024.ZIP"
    with zipfile.ZipFile(several, "w") as archive:
        archive.write(small, "a.TXT")
        archive.write(small, "b.TXT")
    with pytest.raises(FormatError, match=r"found 2 \(a.TXT, b.TXT\)"):
        read_cotahist(several)


def test_absent_and_foreign_files_are_named(tmp_path: Path) -> None:
    """A file that is not there or has another suffix is an error that names it."""
    with pytest.raises(DataError, match="there is no file"):
        read_cotahist(tmp_path / "COTAHIST_A2024.ZIP")
    (tmp_path / "prices.csv").write_text("a,b\n")
    with pytest.raises(FormatError, match=r"suffix '\.csv'"):
        read_cotahist(tmp_path / "prices.csv")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("ticker", "THIRTEENCHARS"),
        ("name", "Ω"),
        ("close", -0.01),
        ("close", np.nan),
        ("close", 1e11),
        ("trades", 100_000),
    ],
)
def test_values_that_do_not_fit_are_not_written(tmp_path: Path, column: str, value: object) -> None:
    """The writer refuses what the field cannot hold, names the line, and leaves no file behind."""
    frame = quotes(["PETR4", "VALE3"], SESSIONS)
    frame[column] = frame[column].where(np.arange(len(frame)) != 3, value)  # type: ignore[call-overload]
    with pytest.raises(FormatError, match=rf"line 5: .* does not fit field {column}"):
        write_cotahist(tmp_path / "COTAHIST_A2024.ZIP", frame, generated=GENERATED)
    assert list(tmp_path.iterdir()) == []


@needs_fixtures
def test_the_official_whole_market_file_is_reproduced_to_the_byte(tmp_path: Path) -> None:
    """Reading and writing B3's own file gives B3's own bytes."""
    frame = read_cotahist(WHOLE_MARKET)
    assert len(frame) == 110_290
    write_cotahist(tmp_path / "COTAHIST_A2021.TXT", frame, generated=date(2021, 1, 26))
    with zipfile.ZipFile(WHOLE_MARKET) as archive:
        assert (tmp_path / "COTAHIST_A2021.TXT").read_bytes() == archive.read("COTAHIST_A2021.TXT")


@needs_fixtures
def test_other_official_files_are_read_and_the_short_one_refused() -> None:
    """One session of 2021, LF line ends of 2003; the truncated file is refused naming both counts."""
    assert len(read_cotahist(ONE_SESSION)) == 7_518
    old = read_cotahist(LF_FILE)
    assert len(old) == 551
    assert set(old["quote_factor"]) == {1, 1000}
    with gzip.open(LF_FILE) as packed:
        assert len(packed.readline()) == RECORD_LENGTH + 1
    with pytest.raises(FormatError, match="the trailer says 1745 records, the file holds 506"):
        read_cotahist(SHORT)
