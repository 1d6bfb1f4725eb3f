"""What makes a record valid, checked on every byte of every record, and what is said when one is not."""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from b3dist.data.cotahist.columns import Rows, day_numbers
from b3dist.data.cotahist.layout import (
    FIELD,
    FIELDS,
    FILE_NAME,
    FILE_NAME_AT,
    GENERATED_AT,
    HEADER_TYPE,
    ORIGIN,
    ORIGIN_AT,
    QUOTE_TYPE,
    RECORD_LENGTH,
    TRAILER_COUNT_AT,
    Field,
)
from b3dist.errors import FormatError

_FIRST_PRINTABLE: Final = ord(" ")


@dataclass(frozen=True, kw_only=True)
class Header:
    """Facts of the header record."""

    title: bytes
    """File name and origin, repeated in the trailer."""
    generated: date


class RecordCheck:
    """Finds the first bad quote record of a block.

    Every byte of a record has an allowed range: the record type and the line end one value each, digits 0-9 in number
    and date fields, anything printable in text. One subtraction and one comparison over the whole block check them all,
    and with them that each record is exactly as long as it must be. Dates are then looked up in the calendar.
    """

    def __init__(self, line_end: bytes, max_rows: int) -> None:
        lowest, span = _allowed_bytes(line_end)
        self.stride = len(lowest)
        self._line_end = line_end
        # Repeated for a whole block, so that NumPy runs one long vectorised loop instead of one per record.
        self._lowest = np.tile(lowest, (max_rows, 1))
        self._span = np.tile(span, (max_rows, 1))
        self._above = np.empty_like(self._lowest)
        self._bad = np.empty(self._lowest.shape, dtype=bool)
        self._days_of_month_day = _month_days()

    def count_good(self, rows: Rows) -> int:
        """Number of valid quote records before the first invalid one (a trailer counts as invalid)."""
        count = len(rows)
        above, bad = self._above[:count], self._bad[:count]
        np.subtract(rows, self._lowest[:count], out=above)
        np.greater(above, self._span[:count], out=bad)
        if bad.any():
            count = int(np.argmax(bad.any(axis=1)))
            rows = rows[:count]
        if not count:
            return 0
        bad_dates = self._bad_dates(rows, FIELD["session"]) | self._bad_dates(rows, FIELD["expiry"], zero=True)
        return int(np.argmax(bad_dates)) if bad_dates.any() else count

    def _bad_dates(self, rows: Rows, field: Field, *, zero: bool = False) -> NDArray[np.bool_]:
        numbers = day_numbers(rows, field.start)
        years, month_days = np.divmod(numbers, 10_000)
        kind = self._days_of_month_day[month_days]
        leap = ((years % 4 == 0) & (years % 100 != 0)) | (years % 400 == 0)
        bad: NDArray[np.bool_] = (kind == 0) | ((kind == _LEAP_DAY) & ~leap) | (years == 0)
        return bad & (numbers != 0) if zero else bad

    def refuse_line(self, path: Path, line_number: int, line: bytes) -> NoReturn:
        """Say what is wrong with a line (its line end included) that is no valid quote record.

        Raises:
            FormatError: always.
        """
        content = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(content) != RECORD_LENGTH:
            refuse(path, line_number, "record length", str(RECORD_LENGTH), str(len(content)))
        if content[: len(QUOTE_TYPE)] != QUOTE_TYPE:
            refuse(path, line_number, "record type", "01 or 99", printable(content[: len(QUOTE_TYPE)]))
        for field in FIELDS:
            value = content[field.start : field.end]
            if field.kind == "text":
                if any(byte < _FIRST_PRINTABLE for byte in value):
                    refuse(path, line_number, f"field {field.title}", "printable characters", printable(value))
            elif not value.isdigit():
                refuse(path, line_number, f"field {field.title}", f"{field.width} digits", printable(value))
            elif field.kind == "date" and parse_date(value) is None and not (field.name == "expiry" and not int(value)):
                refuse(path, line_number, f"field {field.title}", "a date YYYYMMDD", printable(value))
        refuse(path, line_number, "line end", printable(self._line_end), printable(line[RECORD_LENGTH:]))


_LEAP_DAY: Final = 2


def _month_days() -> NDArray[np.int8]:
    """For month x 100 + day: 0 no such day, 1 a day of every year, 2 29 February."""
    kinds = np.zeros(10_000, dtype=np.int8)
    for month, days in enumerate((31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), start=1):
        kinds[month * 100 + 1 : month * 100 + days + 1] = 1
    kinds[229] = _LEAP_DAY
    return kinds


def _allowed_bytes(line_end: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Lowest allowed byte and width of the allowed range for every position of a quote record: (stride,) uint8 each."""
    lowest = np.frombuffer(QUOTE_TYPE.ljust(RECORD_LENGTH) + line_end, np.uint8).copy()
    span = np.zeros_like(lowest)
    for field in FIELDS:
        digits = field.kind != "text"
        lowest[field.start : field.end] = ord("0") if digits else _FIRST_PRINTABLE
        span[field.start : field.end] = 9 if digits else 255 - _FIRST_PRINTABLE
    return lowest, span


def read_header(path: Path, record: bytes) -> Header:
    """Check the header record and return what it says.

    Raises:
        FormatError: type, file name, origin or date is not as the layout wants it.
    """
    if not record.startswith(HEADER_TYPE):
        refuse(path, 1, "record type", "00 (a header)", printable(record[:2]))
    return Header(title=_read_title(path, 1, record), generated=_read_generated(path, 1, record))


def read_trailer(path: Path, line_number: int, record: bytes, *, header: Header, found: int) -> None:
    """Check the trailer record against the header and the number of records found, header and trailer included.

    Raises:
        FormatError: the trailer is malformed or disagrees.
    """
    title = _read_title(path, line_number, record)
    if title != header.title:
        refuse(
            path,
            line_number,
            "file name of the trailer",
            f"{printable(header.title)} as in the header",
            printable(title),
        )
    if (generated := _read_generated(path, line_number, record)) != header.generated:
        refuse(path, line_number, "date of the trailer", f"{header.generated} as in the header", str(generated))
    count = record[TRAILER_COUNT_AT]
    if not count.isdigit():
        refuse(path, line_number, "record count of the trailer", "11 digits", printable(count))
    if int(count) != found:
        raise FormatError(
            f"{path}, line {line_number}: the trailer says {int(count)} records, the file holds {found} "
            "(header and trailer included)",
            hint="the file is incomplete or was edited: get it again from B3",
        )


def _read_title(path: Path, line_number: int, record: bytes) -> bytes:
    name, origin = record[FILE_NAME_AT], record[ORIGIN_AT]
    if not name.startswith(FILE_NAME) or not name[len(FILE_NAME) :].isdigit():
        refuse(path, line_number, "file name", "COTAHIST.YYYY", printable(name))
    if origin != ORIGIN:
        refuse(path, line_number, "origin", printable(ORIGIN), printable(origin))
    return name + origin


def _read_generated(path: Path, line_number: int, record: bytes) -> date:
    generated = parse_date(record[GENERATED_AT])
    if generated is None:
        refuse(path, line_number, "date of generation", "a date YYYYMMDD", printable(record[GENERATED_AT]))
    return generated


def parse_date(digits: bytes) -> date | None:
    """The date written as YYYYMMDD; None if there is no such date."""
    if len(digits) != 8 or not digits.isdigit():
        return None
    try:
        return datetime(int(digits[:4]), int(digits[4:6]), int(digits[6:])).date()
    except ValueError:
        return None


def printable(raw: bytes) -> str:
    """Bytes from a file as they can stand in a message."""
    return repr(raw.decode("latin-1"))


def refuse(path: Path, line_number: int, field: str, expected: str, got: str) -> NoReturn:
    """Refuse a file.

    Raises:
        FormatError: always; names file, line and field.
    """
    raise FormatError(
        f"{path}, line {line_number}, {field}: expected {expected}, got {got}",
        hint="nothing of this file was taken; get it again from B3",
    )
