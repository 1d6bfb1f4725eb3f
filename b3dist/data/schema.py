"""Columns, types and units of every table that leaves a module."""

import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of the lake's and the bundles' layout; a reader refuses any other."""

BARS = pa.schema(
    [
        ("session", pa.date32()),
        ("ticker", pa.string()),
        ("isin", pa.string()),
        ("name", pa.string()),
        ("class", pa.string()),  # ON, PN, PNA.., UNT, CI, DR..
        ("segment", pa.string()),  # NM, N1, N2, MA, MB or empty
        ("bdi_code", pa.int16()),
        ("market", pa.int16()),  # 10 = cash
        ("open", pa.float64()),  # prices: BRL per share, as traded (unadjusted)
        ("high", pa.float64()),
        ("low", pa.float64()),
        ("average", pa.float64()),
        ("close", pa.float64()),
        ("best_bid", pa.float64()),  # 0 where no quote stood at the close
        ("best_ask", pa.float64()),
        ("trades", pa.int32()),  # wraps at 100,000 in the source
        ("quantity", pa.int64()),  # shares
        ("turnover_brl", pa.float64()),
        ("quote_factor", pa.int32()),  # shares per quoted price in the source; prices above are already divided by it
        ("ex_mark", pa.string()),  # EB, EG, EDB, .. or empty
        ("distribution_number", pa.int32()),
        ("adjustment", pa.float64()),  # price x adjustment is comparable with the newest price; divide a quantity by it
        ("generated", pa.date32()),  # header date of the file the bar came from
    ]
)
"""One bar per ticker and session; sorted by ticker, then session."""

ACTIONS = ("buy", "sell", "hold")
"""Action names by id: 0 buy, 1 sell, 2 hold."""

BUY, SELL, HOLD = 0, 1, 2
