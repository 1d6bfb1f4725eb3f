"""The market's own move between two bars: what a price step on an ex-date would have been without the event."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

MIN_TICKERS: Final = 20
"""Fewer tickers than this on a session make no market: its move counts as 0."""


class MarketMove:
    """Median log moves of all tickers, session by session.

    Args:
        bars: ticker, session, open, close; sorted by ticker, then session.

    Attributes:
        position: (rows,) number of each row's session among all sessions of the bars.
    """

    def __init__(self, bars: pd.DataFrame) -> None:
        sessions = bars["session"].to_numpy().astype("datetime64[D]")
        self._calendar, self.position = np.unique(sessions, return_inverse=True)
        ticker = pd.factorize(bars["ticker"])[0]
        neighbours = (ticker[1:] == ticker[:-1]) & (np.diff(self.position) == 1)
        rows = np.flatnonzero(neighbours) + 1
        opening, close = bars["open"].to_numpy(dtype=float), bars["close"].to_numpy(dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            overnight = np.log(opening[rows] / close[rows - 1])
            daily = np.log(close[rows] / close[rows - 1])
        self._overnight = self._median(overnight, rows)
        self._level = np.cumsum(self._median(daily, rows))

    def _median(self, moves: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(sessions,) median move; 0 on sessions with too few."""
        finite = np.isfinite(moves)
        grouped = pd.Series(moves[finite]).groupby(self.position[rows[finite]]).agg(["median", "size"])
        medians = np.zeros(len(self._calendar))
        medians[grouped.index.to_numpy()] = np.where(grouped["size"] >= MIN_TICKERS, grouped["median"], 0.0)
        return medians

    def sessions_between(self, earlier: npt.NDArray[np.int64], later: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Exchange sessions from one row of the bars to another; 1 for neighbouring sessions."""
        return np.asarray(self.position[later] - self.position[earlier], dtype=np.int64)

    def until_close(self, earlier: npt.NDArray[np.int64], later: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Log move of the market from the close of row `earlier` to the close of row `later`."""
        return np.asarray(self._level[self.position[later]] - self._level[self.position[earlier]])

    def until_opening(self, earlier: npt.NDArray[np.int64], later: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Log move of the market from the close of row `earlier` to the opening of row `later`."""
        last_close = self.position[later] - 1
        quiet: npt.NDArray[np.float64] = self._level[last_close] - self._level[self.position[earlier]]
        return quiet + self._overnight[self.position[later]]
