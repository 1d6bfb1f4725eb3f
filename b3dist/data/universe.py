"""Which quote records are bars, and the bars they make."""

from datetime import date
from typing import Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from b3dist.data.cotahist.columns import Rows, as_dates, day_numbers, decimals, texts, whole_numbers
from b3dist.data.cotahist.layout import FIELD, NUMBER_TYPES
from b3dist.data.schema import BARS
from b3dist.errors import ConfigError

Universe = Literal["shares", "funds", "bdrs", "all"]
UNIVERSES: Final[tuple[str, ...]] = get_args(Universe)

SHARE_BDI_CODES: Final = (2, 5, 6, 7, 8, 9, 11)
"""Round lots (02) and companies under sanction, in recovery or intervention. Dropping the latter would be survivorship
bias: OIBR3 traded under 08 in 2021."""
FUND_BDI_CODES: Final = (12, 14)
"""Real estate funds (FII) and exchange-traded funds (ETF)."""
BDR_BDI_CODES: Final = (2, 5, 6, 7, 8, 9, 11, 14, 34, 35, 36)
"""BDRs moved between codes over the years (14 in 2003, 02 in 2021, 34 in 2023): ESPECI decides, this only keeps rights
and auctions out."""

SEGMENTS: Final = ("NM", "N1", "N2", "MA", "MB")
"""Listing segments: Novo Mercado, level 1, level 2, Bovespa Mais, Bovespa Mais level 2."""

# The ten characters of ESPECI: class (3), "*" where quoted per lot (1), ex-mark (4), segment (2).
_SPECIFICATION: Final = FIELD["specification"].start
_CLASS: Final = slice(_SPECIFICATION, _SPECIFICATION + 3)
_LOT_MARK: Final = _SPECIFICATION + 3
_MARK: Final = slice(_SPECIFICATION + 4, _SPECIFICATION + 8)
_SEGMENT: Final = slice(_SPECIFICATION + 8, _SPECIFICATION + 10)


def check_universe(name: str) -> None:
    """Refuse an unknown universe.

    Raises:
        ConfigError: `name` is none of shares, funds, bdrs, all.
    """
    if name not in UNIVERSES:
        raise ConfigError(f"unknown universe {name!r}", hint=f"choose one of {', '.join(UNIVERSES)}")


def select_bars(rows: Rows, universe: str) -> NDArray[np.bool_]:
    """Which verified quote records belong to the universe: (rows,) bool.

    The cash market (TPMERC 010) only: no odd lots, options, forwards or auctions. `shares` is ON, PN* and UNT without
    rights (DIR) and receipts (ON REC); `funds` CI under CODBDI 12 or 14; `bdrs` DR* and BDR; `all` the three together.
    """
    market = FIELD["market"].start
    chosen = np.zeros(len(rows), dtype=bool)
    codes = _pairs(rows, FIELD["bdi_code"].start)
    first_two, third = _pairs(rows, _CLASS.start), rows[:, _CLASS.stop - 1]
    if universe in ("shares", "all"):
        classes = (first_two == _pair("PN")) | ((first_two == _pair("ON")) & (third == ord(" ")))
        classes |= (first_two == _pair("UN")) & (third == ord("T"))
        receipt = (_pairs(rows, _MARK.start) == _pair("RE")) & (rows[:, _MARK.start + 2] == ord("C"))
        chosen |= classes & ~receipt & _allowed(SHARE_BDI_CODES)[codes]
    if universe in ("funds", "all"):
        chosen |= (first_two == _pair("CI")) & (third == ord(" ")) & _allowed(FUND_BDI_CODES)[codes]
    if universe in ("bdrs", "all"):
        classes = (first_two == _pair("DR")) | ((first_two == _pair("BD")) & (third == ord("R")))
        chosen |= classes & _allowed(BDR_BDI_CODES)[codes]
    lot_mark = rows[:, _LOT_MARK]
    chosen &= (lot_mark == ord(" ")) | (lot_mark == ord("*"))
    chosen &= (_pairs(rows, market) == _pair("01")) & (rows[:, market + 2] == ord("0"))
    return chosen


def to_bars(rows: Rows, *, generated: date) -> pa.Table:
    """Selected records as bars in file order, prices and quotes per share, `adjustment` 1.

    Args:
        rows: records chosen by `select_bars`; a quote factor of at least 1 was checked.
        generated: header date of their file.
    """
    factor = whole_numbers(rows, FIELD["quote_factor"].start, FIELD["quote_factor"].end)
    segment = texts(rows, _SEGMENT.start, _SEGMENT.stop)
    columns: dict[str, object] = {
        "session": pa.array(as_dates(day_numbers(rows, FIELD["session"].start))),
        "class": texts(rows, _CLASS.start, _CLASS.stop),
        "segment": pc.if_else(pc.is_in(segment, pa.array(SEGMENTS)), segment, ""),
        "ex_mark": pc.utf8_trim(texts(rows, _MARK.start, _MARK.stop), characters=" "),
        "bdi_code": whole_numbers(rows, FIELD["bdi_code"].start, FIELD["bdi_code"].end),
        "turnover_brl": decimals(rows, FIELD["turnover_brl"]),
        "adjustment": np.ones(len(rows)),
        "generated": pa.repeat(pa.scalar(generated, pa.date32()), len(rows)),
    }
    for name in ("ticker", "isin", "name"):
        columns[name] = texts(rows, FIELD[name].start, FIELD[name].end)
    for name in ("open", "high", "low", "average", "close", "best_bid", "best_ask"):
        columns[name] = decimals(rows, FIELD[name]) / factor
    for name in NUMBER_TYPES.keys() & set(BARS.names):
        columns[name] = whole_numbers(rows, FIELD[name].start, FIELD[name].end)
    return pa.table({field.name: pa.array(columns[field.name]).cast(field.type) for field in BARS}, schema=BARS)


def _pair(characters: str) -> int:
    return int.from_bytes(characters.encode("ascii"), "little")


def _pairs(rows: Rows, start: int) -> NDArray[np.uint16]:
    """Two neighbouring characters of every row as one number, comparable with `_pair`."""
    strided = np.ndarray((len(rows),), dtype="<u2", buffer=rows.data, offset=start, strides=(rows.strides[0],))
    return strided.astype(np.uint16)


def _allowed(codes: tuple[int, ...]) -> NDArray[np.bool_]:
    """Table over all pairs of characters: whether the pair is one of the two-digit codes."""
    table = np.zeros(2**16, dtype=bool)
    table[[_pair(f"{code:02d}") for code in codes]] = True
    return table
