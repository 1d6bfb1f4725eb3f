"""Who holds what in a lake at one moment, to tell what an ingest took from whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Self

from b3dist.data.lake.manifest import MANIFEST_NAME
from b3dist.data.lake.reader import Lake


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """The files that hold the sessions of a lake, and its tickers."""

    holders: Mapping[date, str] = field(default_factory=dict)
    """The file (its sha256) of each session."""
    tickers: Mapping[str, tuple[date, date]] = field(default_factory=dict)
    """First and last session of each ticker."""

    @classmethod
    def of(cls, lake: Path) -> Self:
        """What the lake holds now; nothing where there is no lake yet.

        Raises:
            LakeError: the lake is damaged.
        """
        if not (lake / MANIFEST_NAME).exists():
            return cls()
        opened = Lake(lake)
        tickers = opened.tickers()
        spans = zip(tickers["first_session"].dt.date, tickers["last_session"].dt.date, strict=True)
        return cls(holders=opened.holders(), tickers=dict(zip(tickers["ticker"], spans, strict=True)))

    def taken_by(self, sha256: str, later: "Holdings") -> set[date]:
        """Sessions that another file held here and that this file holds later."""
        return {day for day, file in later.holders.items() if file == sha256 != self.holders.get(day, sha256)}

    def tickers_gone(self, taken: set[date], later: "Holdings") -> list[str]:
        """Tickers that are gone later and were there when one of the taken sessions was."""
        gone = {ticker: span for ticker, span in self.tickers.items() if ticker not in later.tickers}
        return sorted(
            ticker for ticker, (first, last) in gone.items() if any(first <= session <= last for session in taken)
        )
