"""Small COTAHIST files for the tests of reader and lake."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from b3dist.data.cotahist import FIELDS, write_cotahist

SHARED = Path(__file__).parents[2] / ".." / "shared"
"""Design and data folder beside the checkout; tests that need it are skipped where it is absent."""

DEVELOPMENT = SHARED / "data" / "cotahist"
WHOLE_MARKET = SHARED / "data" / "fixtures" / "COTAHIST_A2021_to_20210126.ZIP"
ONE_SESSION = SHARED / "data" / "fixtures" / "COTAHIST_D25062021.TXT.gz"
SHORT = SHARED / "data" / "fixtures" / "COTAHIST_D04012016_short_trailer_mismatch.TXT.gz"
LF_FILE = SHARED / "data" / "fixtures" / "Demo_12022003.txt.gz"


def quotes(tickers: Sequence[str], sessions: Sequence[str], *, seed: int = 0, **constants: object) -> pd.DataFrame:
    """Plausible share quotes for every ticker and session, ordered by session; `constants` replace whole columns."""
    generator = np.random.default_rng(seed)
    count = len(tickers) * len(sessions)
    close = generator.integers(100, 5000, count) / 100
    columns: dict[str, object] = {
        "session": pd.to_datetime(np.repeat(np.asarray(sessions), len(tickers))).astype("datetime64[s]"),
        "bdi_code": "02",
        "ticker": list(tickers) * len(sessions),
        "market": 10,
        "name": "COMPANHIA",
        "specification": "ON      NM",
        "term_days": "",
        "currency": "R$",
        "open": close,
        "high": close + 1,
        "low": close - 1,
        "average": close,
        "close": close,
        "best_bid": close - 0.01,
        "best_ask": close + 0.01,
        "trades": generator.integers(1, 99_999, count),
        "quantity": generator.integers(1, 10**9, count),
        "turnover_brl": generator.integers(1, 10**12, count) / 100,
        "strike": 0.0,
        "strike_correction": 0,
        "expiry": np.datetime64("9999-12-31", "s"),
        "quote_factor": 1,
        "strike_points": 0.0,
        "isin": "BRCOMPACNOR1",
        "distribution_number": 100,
    }
    columns.update(constants)
    return pd.DataFrame(columns)[[field.name for field in FIELDS]]


def write_quotes(
    path: Path, tickers: Sequence[str], sessions: Sequence[str], *, generated: date, **options: object
) -> Path:
    """Write such quotes and return the path."""
    frame = quotes(tickers, sessions, **options)  # type: ignore[arg-type]
    write_cotahist(path, frame, generated=generated)
    return path


def edited(path: Path, changes: Mapping[tuple[int, int], bytes]) -> Path:
    """Overwrite bytes of a .TXT file in place: {(1-based line, 0-based column): new bytes}."""
    lines = path.read_bytes().split(b"\n")
    for (line, column), new in changes.items():
        old = lines[line - 1]
        lines[line - 1] = old[:column] + new + old[column + len(new) :]
    path.write_bytes(b"\n".join(lines))
    return path
