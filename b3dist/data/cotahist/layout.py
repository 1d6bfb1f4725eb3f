"""The official layout of COTAHIST: which bytes of a record hold which field.

Source: B3, "Layout do arquivo - Cotações históricas", revision 02 (5 October 2020). Every record has 245 bytes: one
header (type 00), the quotes (type 01, one per paper, market and session), one trailer (type 99).
"""

from dataclasses import dataclass
from typing import Literal

RECORD_LENGTH = 245
"""Bytes of a record without its line end."""

HEADER_TYPE, QUOTE_TYPE, TRAILER_TYPE = b"00", b"01", b"99"

FILE_NAME = b"COTAHIST."
"""First 9 bytes of field 2 of header and trailer; the year follows."""
ORIGIN = b"BOVESPA "
"""Field 3 of header and trailer."""
FILE_NAME_AT = slice(2, 15)
ORIGIN_AT = slice(15, 23)
GENERATED_AT = slice(23, 31)
TRAILER_COUNT_AT = slice(31, 42)
"""Number of records of the file, header and trailer included."""

Kind = Literal["date", "text", "number", "decimal"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of the quote record; `start` and `end` are 0-based and half-open (the layout's own are 1-based)."""

    name: str
    official: str
    start: int
    end: int
    kind: Kind
    decimals: int = 0
    """Implied decimal places of a `decimal` field."""

    @property
    def width(self) -> int:
        """Bytes of the field."""
        return self.end - self.start

    @property
    def title(self) -> str:
        """Both names, for error messages."""
        return f"{self.name} ({self.official})"


def _fields() -> tuple[Field, ...]:
    """Fields in the order of the layout, so that each starts where the one before ends."""
    table: tuple[tuple[str, str, int, Kind, int], ...] = (
        ("session", "DATA DO PREGAO", 8, "date", 0),
        ("bdi_code", "CODBDI", 2, "text", 0),
        ("ticker", "CODNEG", 12, "text", 0),
        ("market", "TPMERC", 3, "number", 0),
        ("name", "NOMRES", 12, "text", 0),
        ("specification", "ESPECI", 10, "text", 0),
        ("term_days", "PRAZOT", 3, "text", 0),
        ("currency", "MODREF", 4, "text", 0),
        ("open", "PREABE", 13, "decimal", 2),
        ("high", "PREMAX", 13, "decimal", 2),
        ("low", "PREMIN", 13, "decimal", 2),
        ("average", "PREMED", 13, "decimal", 2),
        ("close", "PREULT", 13, "decimal", 2),
        ("best_bid", "PREOFC", 13, "decimal", 2),
        ("best_ask", "PREOFV", 13, "decimal", 2),
        ("trades", "TOTNEG", 5, "number", 0),
        ("quantity", "QUATOT", 18, "number", 0),
        ("turnover_brl", "VOLTOT", 18, "decimal", 2),
        ("strike", "PREEXE", 13, "decimal", 2),
        ("strike_correction", "INDOPC", 1, "number", 0),
        ("expiry", "DATVEN", 8, "date", 0),
        ("quote_factor", "FATCOT", 7, "number", 0),
        ("strike_points", "PTOEXE", 13, "decimal", 6),
        ("isin", "CODISI", 12, "text", 0),
        ("distribution_number", "DISMES", 3, "number", 0),
    )
    fields, start = [], len(QUOTE_TYPE)
    for name, official, width, kind, decimals in table:
        end = start + width
        fields.append(Field(name=name, official=official, start=start, end=end, kind=kind, decimals=decimals))
        start = end
    assert start == RECORD_LENGTH
    return tuple(fields)


FIELDS = _fields()
"""Every field of the quote record except its type, in layout order."""

FIELD = {field.name: field for field in FIELDS}
"""The same by name."""

NUMBER_TYPES = {
    "market": "int16",
    "trades": "int32",
    "quantity": "int64",
    "strike_correction": "int8",
    "quote_factor": "int32",
    "distribution_number": "int16",
}
"""NumPy type of each whole-number column; decimal columns are float64."""
