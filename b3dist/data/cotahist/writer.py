"""Write quote records as an official COTAHIST file."""

import gzip
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import IO, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from b3dist.data.cotahist.columns import Rows
from b3dist.data.cotahist.layout import (
    FIELDS,
    FILE_NAME,
    HEADER_TYPE,
    ORIGIN,
    QUOTE_TYPE,
    RECORD_LENGTH,
    TRAILER_TYPE,
    Field,
)
from b3dist.errors import FormatError, StorageError

_LINE_END = b"\r\n"
_ROWS_AT_ONCE = 32_768


def write_cotahist(path: Path, records: pd.DataFrame, *, generated: date) -> int:
    """Write one file in the official layout; it appears whole or not at all.

    The same records give the same bytes: no clock enters the archive.

    Args:
        path: .TXT, .ZIP or .gz (any case); the ZIP's member is named like the file, with .TXT.
        records: one column per field of record 01 (see layout.FIELDS); prices in BRL as printed, that is per
            `quote_factor` shares, rounded to their printed decimals. Whole numbers in a text column are zero-padded.
            A missing date is written as 00000000. Records keep the frame's order.
        generated: date of header and trailer.

    Returns:
        Number of quote records written.

    Raises:
        FormatError: a column is missing, or a value does not fit its field.
        StorageError: the file cannot be written.
    """
    missing = [field.name for field in FIELDS if field.name not in records.columns]
    if missing:
        raise FormatError(f"{path}: cannot write records without the columns {', '.join(missing)}")
    with _replacing(path, generated) as stream:
        for block in _blocks(records, path, generated):
            stream.write(block)
    return len(records)


def _blocks(records: pd.DataFrame, path: Path, generated: date) -> Iterator[bytes]:
    year = pd.Timestamp(records["session"].max()).year if len(records) else generated.year
    title = FILE_NAME + b"%04d" % year + ORIGIN + generated.strftime("%Y%m%d").encode()
    yield (HEADER_TYPE + title).ljust(RECORD_LENGTH) + _LINE_END
    for first in range(0, len(records), _ROWS_AT_ONCE):
        chunk = records.iloc[first : first + _ROWS_AT_ONCE]
        yield format_records(chunk, path=path, first_line=first + 2).tobytes()
    total = b"%011d" % (len(records) + 2)
    yield (TRAILER_TYPE + title + total).ljust(RECORD_LENGTH) + _LINE_END


def format_records(records: pd.DataFrame, *, path: Path, first_line: int) -> Rows:
    """The records as bytes with their line ends: (rows, 247) uint8."""
    rows = np.empty((len(records), RECORD_LENGTH + len(_LINE_END)), dtype=np.uint8)
    rows[:, : len(QUOTE_TYPE)] = np.frombuffer(QUOTE_TYPE, np.uint8)
    rows[:, RECORD_LENGTH:] = np.frombuffer(_LINE_END, np.uint8)
    for field in FIELDS:
        column = records[field.name]
        if field.kind == "text" and not pd.api.types.is_integer_dtype(column):
            encoded, bad = _encode(column, field)
            rows[:, field.start : field.end] = encoded
        else:
            numbers, bad = _units(column, field)
            _put_digits(rows, numbers, field)
        if bad.any():
            at = int(np.argmax(bad))
            raise FormatError(
                f"{path}, line {first_line + at}: {column.iloc[at]!r} does not fit field {field.title}",
                hint=f"{field.width} {'characters of latin-1' if field.kind == 'text' else 'digits'} are available",
            )
    return rows


def _units(column: pd.Series, field: Field) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The column in units of the field's last digit, and where it does not fit."""
    if field.kind == "date":
        days = column.to_numpy().astype("datetime64[D]")
        absent = np.isnat(days)
        days = np.where(absent, np.datetime64("1970-01-01"), days)
        years, months = days.astype("datetime64[Y]"), days.astype("datetime64[M]")
        numbers = (years.astype(np.int64) + 1970) * 10_000
        numbers += (months.astype(np.int64) % 12 + 1) * 100 + (days - months.astype("datetime64[D]")).astype(int) + 1
        numbers[absent] = 0
        return numbers, (numbers < 0) | (numbers >= 10**8)
    if field.kind == "decimal":
        scaled = np.rint(column.to_numpy(np.float64) * 10.0**field.decimals)
        bad = ~(scaled >= 0) | (scaled >= 10.0**field.width)
        return np.where(bad, 0, scaled).astype(np.int64), bad
    numbers = column.to_numpy(np.int64).copy()
    return numbers, (numbers < 0) | (numbers >= 10**field.width)


def _put_digits(rows: Rows, numbers: NDArray[np.int64], field: Field) -> None:
    left = numbers.copy()
    for position in range(field.end - 1, field.start - 1, -1):
        left, digit = np.divmod(left, 10)
        rows[:, position] = digit + ord("0")


def _encode(column: pd.Series, field: Field) -> tuple[Rows, NDArray[np.bool_]]:
    """The texts padded with blanks, (rows, width) uint8, and where they do not fit."""
    codes, values = pd.factorize(column)
    encoded = np.full((len(values) + 1, field.width), ord(" "), dtype=np.uint8)  # the last row: missing values
    bad = np.zeros(len(values) + 1, dtype=bool)
    for at, value in enumerate(values):
        try:
            content = str(value).encode("latin-1")
        except UnicodeEncodeError:
            bad[at] = True
            continue
        bad[at] = len(content) > field.width or any(byte < ord(" ") for byte in content)
        if not bad[at]:
            encoded[at, : len(content)] = np.frombuffer(content, np.uint8)
    return encoded[codes], bad[codes]


@contextmanager
def _replacing(path: Path, generated: date) -> Iterator[IO[bytes]]:
    """A binary stream into the file of that suffix; it replaces `path` at the end, or vanishes on an error."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with _compressed(aside, path, generated) as stream:
                yield stream
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}", hint="check the folder, its permissions and free space"
        ) from error


@contextmanager
def _compressed(aside: Path, path: Path, generated: date) -> Iterator[IO[bytes]]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        with aside.open("wb") as plain:
            yield plain
    elif suffix == ".gz":
        with (
            aside.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        ):
            yield cast(IO[bytes], packed)
    elif suffix == ".zip":
        member = zipfile.ZipInfo(f"{path.stem}.TXT", date_time=_zip_time(generated))
        member.compress_type = zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(aside, "w") as archive, archive.open(member, "w", force_zip64=True) as packed_member:
            yield packed_member
    else:
        raise FormatError(f"cannot write {path}: expected the suffix .TXT, .ZIP or .gz, got {path.suffix!r}")


def _zip_time(generated: date) -> tuple[int, int, int, int, int, int]:
    return max(generated.year, 1980), generated.month, generated.day, 0, 0, 0  # ZIP knows no earlier year
