"""Small files of two shares, and looking into the lake they end up in."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from b3dist.data.lake import Lake
from tests.data.cotahist_files import SHARED, write_quotes

TICKERS = ["PETR4", "VALE3"]
SESSIONS = ["2023-12-28", "2024-01-02", "2024-01-03"]
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not there")


def write(path: Path, *, generated: date = date(2024, 1, 3), seed: int = 0, **columns: object) -> Path:
    """A file of two shares over three sessions in two years."""
    return write_quotes(path, TICKERS, SESSIONS, generated=generated, seed=seed, **columns)


def content(lake: Path) -> pd.DataFrame:
    """All bars of a lake."""
    return Lake(lake).all_bars()


def files_of(lake: Path) -> set[str]:
    """Every file in the lake's folder but the lock."""
    return {str(path.relative_to(lake)) for path in lake.rglob("*") if path.is_file()} - {".lock"}
