"""Bars that a file holds twice: the same ticker in the same session. The last one counts, and the user is told."""

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from b3dist.data.cotahist import FIELD
from b3dist.data.cotahist.columns import Rows, as_dates, day_numbers

_TICKER = FIELD["ticker"]


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """How many bars of a file are replaced by a later record of the same file, and where the first of them is."""

    count: int = 0
    ticker: str = ""
    session: date | None = None
    lines: tuple[int, int] = (0, 0)
    """From 1: of the record that does not count, and of the one that comes after it."""


class RepeatFinder:
    """Collects 16 bytes of every bar of a file (a day and a ticker) and finds those that are equal."""

    def __init__(self) -> None:
        self._keys: list[NDArray[np.uint8]] = []
        self._lines: list[NDArray[np.int64]] = []

    def add(self, rows: Rows, lines: NDArray[np.int64]) -> None:
        """Take note of bars.

        Args:
            rows: (rows, bytes) verified quote records of the universe.
            lines: (rows,) their lines in the file, from 1, ascending over all calls.
        """
        if not len(rows):
            return
        keys = np.empty((len(rows), 16), dtype=np.uint8)
        keys[:, :4] = day_numbers(rows, FIELD["session"].start).astype(">u4").view(np.uint8).reshape(-1, 4)
        keys[:, 4:] = rows[:, _TICKER.start : _TICKER.end]
        self._keys.append(keys)
        self._lines.append(lines)

    def find(self) -> Repeats:
        """What is there twice."""
        if not self._keys:
            return Repeats()
        keys, lines = np.concatenate(self._keys), np.concatenate(self._lines)
        words = keys.view(">u8").astype(np.uint64)
        order = np.lexsort((words[:, 1], words[:, 0]))  # stable: equal keys stay in the order of their lines
        again = np.flatnonzero((words[order[1:]] == words[order[:-1]]).all(axis=1))
        if not len(again):
            return Repeats()
        first = again[np.argmin(lines[order[again]])]
        row = order[first]
        return Repeats(
            count=len(again),
            ticker=keys[row, 4:].tobytes().decode("latin-1").strip(),
            session=as_dates(keys[row : row + 1, :4].copy().view(">u4").astype(np.int64).ravel())[0].item(),
            lines=(int(lines[row]), int(lines[order[first + 1]])),
        )
