"""Bytes of verified quote records to typed columns, without a Python loop over rows."""

from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from b3dist.data.cotahist.layout import FIELDS, NUMBER_TYPES, RECORD_LENGTH, Field

Rows = NDArray[np.uint8]
"""Quote records: (rows, at least 245) uint8, one record per row, rows contiguous in memory."""

_WORD: Final = 8


def whole_numbers(rows: Rows, start: int, end: int) -> NDArray[np.int64]:
    """The digits of bytes start..end of every row as integers: (rows,) int64.

    Eight digits are turned into a number at once, inside 64-bit words: neighbouring digits are joined into pairs, pairs
    into fours, fours into eights, by one multiplication each. A word may begin left of the field; what it holds there
    is masked out. The bytes must be digits (see reader: verified before).
    """
    total = np.zeros(len(rows), dtype=np.uint64)
    for piece_end in _piece_ends(start, end):
        digits = min(_WORD, piece_end - start)
        total *= np.uint64(10**digits)
        total += _eight_digits(_words(rows, piece_end - _WORD), keep=digits)
    return total.astype(np.int64)


def _piece_ends(start: int, end: int) -> list[int]:
    """Ends of the at most 8 digits wide pieces of a field, left to right; the leftmost may be narrower."""
    ends = list(range(end, start, -_WORD))
    return ends[::-1]


def _words(rows: Rows, offset: int) -> NDArray[np.uint64]:
    strided = np.ndarray((len(rows),), dtype="<u8", buffer=rows.data, offset=offset, strides=(rows.strides[0],))
    return strided.astype(np.uint64)


def _eight_digits(words: NDArray[np.uint64], *, keep: int) -> NDArray[np.uint64]:
    """Numbers written in the last `keep` characters of 8-character words (first character in the lowest byte)."""
    mask = (0x0F0F0F0F0F0F0F0F << (8 * (_WORD - keep))) & 0x0F0F0F0F0F0F0F0F
    words &= np.uint64(mask)
    words *= np.uint64(10 * 2**8 + 1)
    words >>= np.uint64(8)
    words &= np.uint64(0x00FF00FF00FF00FF)
    words *= np.uint64(100 * 2**16 + 1)
    words >>= np.uint64(16)
    words &= np.uint64(0x0000FFFF0000FFFF)
    words *= np.uint64(10_000 * 2**32 + 1)
    words >>= np.uint64(32)
    return words


def day_numbers(rows: Rows, start: int) -> NDArray[np.int64]:
    """Dates as YYYYMMDD integers: (rows,) int64."""
    return whole_numbers(rows, start, start + _WORD)


def as_dates(numbers: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """YYYYMMDD integers as datetime64[D]; 0 (no date) becomes NaT."""
    year, month, day = numbers // 10_000, numbers // 100 % 100, numbers % 100
    months = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1).astype("timedelta64[M]")
    dates: NDArray[np.datetime64] = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    dates[numbers == 0] = np.datetime64("NaT", "D")
    return dates


def decimals(rows: Rows, field: Field) -> NDArray[np.float64]:
    """A decimal field as float64; the float nearest to the printed value (exact to 2**53 units of the last place)."""
    return whole_numbers(rows, field.start, field.end) / 10.0**field.decimals


def texts(rows: Rows, start: int, end: int) -> pa.Array:
    """A text field, latin-1, without trailing blanks: a pyarrow string array.

    Only distinct values are decoded: a year of the whole market has some 5,000 company names and tickers.
    """
    if not len(rows):
        return pa.array([], pa.string())
    raw = np.ascontiguousarray(rows[:, start:end])
    fixed = pa.Array.from_buffers(pa.binary(end - start), len(rows), [None, pa.py_buffer(raw)])
    coded = fixed.dictionary_encode()
    decoded = [value.decode("latin-1").rstrip(" ") for value in coded.dictionary.to_pylist()]
    return pa.array(decoded, pa.string()).take(coded.indices)


def to_frame(rows: Rows) -> pd.DataFrame:
    """Every field of the rows as one typed column each, in layout order; dates are datetime64[s]."""
    return pd.DataFrame({field.name: _column(rows, field) for field in FIELDS})


def _column(rows: Rows, field: Field) -> pd.Series:
    if field.kind == "text":
        return pd.Series(texts(rows, field.start, field.end).to_pandas(), dtype="str")
    if field.kind == "decimal":
        return pd.Series(decimals(rows, field))
    if field.kind == "date":
        return pd.Series(as_dates(day_numbers(rows, field.start)).astype("datetime64[s]"))
    return pd.Series(whole_numbers(rows, field.start, field.end).astype(NUMBER_TYPES[field.name]))


def empty_rows() -> Rows:
    """No record at all."""
    return np.empty((0, RECORD_LENGTH), dtype=np.uint8)
