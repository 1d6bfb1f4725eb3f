"""A release and a lake, ready to answer: every asset's rows and weights resident, nothing left to read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from b3dist.data.features import INVALID_ROWS, WARMUP_SESSIONS
from b3dist.data.lake import Lake
from b3dist.errors import DataError, TooFewSessionsError, UnknownTickerError
from b3dist.release import Release
from b3dist.scoring.callers_bars import check_bars, positions_of
from b3dist.scoring.history import score_history
from b3dist.scoring.models import ReleasedModels, Which
from b3dist.scoring.rows import (
    AssetRows,
    Columns,
    adjustment_at,
    describe_needed,
    make_rows,
    read_columns,
    rows_of_lake,
)
from b3dist.scoring.table import SCORES, tabulate_scores
from b3dist.scoring.windows import Skipped, Window

STALE_AFTER = 5
"""Exchange sessions beyond which a score is stale."""
LARGEST_INPUT = 1e30
"""A z-score that a caller's bars may come to: 32-bit sums of several beyond it may be no number."""


@dataclass(frozen=True, kw_only=True)
class _Resident:
    """One asset that the lake has bars of."""

    rows: AssetRows
    adjustment: npt.NDArray[np.float64]
    """(rows,) of the lake."""
    newest: Window | None
    """The window at the lake's newest session; None where there is none."""


class Scorer:
    """Scores any mixture of a release's tickers; nothing changes after construction, so threads may share it.

    Args:
        release: an opened release.
        lake: as it is now; later ingests are not seen.
        which: the models meant for serving, or those that metrics and predictions are of.
        stale_after: exchange sessions beyond which a score is marked stale.
        tickers: assets to keep ready; None: all of the release.

    Raises:
        LakeError: a file of the lake is gone or damaged.
        UnknownTickerError: the release has no such ticker.
    """

    def __init__(
        self,
        release: Release,
        lake: Lake,
        *,
        which: Which = "served",
        stale_after: int = STALE_AFTER,
        tickers: Collection[str] | None = None,
    ) -> None:
        self.release = release
        self.release_id = release.release_id
        self.lake_manifest_hash = lake.manifest_hash
        self.calendar = lake.calendar()
        self.stale_after = stale_after
        self._models = ReleasedModels(release, which, tickers)
        self._assets = {ticker: self._keep(ticker, columns) for ticker, columns in read_columns(lake, self._models.of)}

    @property
    def tickers(self) -> list[str]:
        """Every ticker it has a model of, in alphabetical order."""
        return list(self._models.of)

    @property
    def newest_session(self) -> date | None:
        """The lake's newest session; None in an empty lake."""
        return self.calendar[-1].astype(object) if len(self.calendar) else None

    def locate(self, ticker: str, as_of: date | None = None) -> Window:
        """The window that ends at the last session an asset traded up to a day.

        Args:
            ticker: as in the release.
            as_of: last session seen, or a day after it; None: the lake's newest.

        Raises:
            UnknownTickerError: the release has no such ticker.
            TooFewSessionsError: its history up to then, or since its last gap, is too short for a window.
            DataError: a bar of it is impossible, or the lake ends before the model's anchor.
        """
        asset = self._asset(ticker)
        if asset is None:
            needed = INVALID_ROWS + self._models.data(ticker).lookback
            raise TooFewSessionsError(f"the lake has no bars of {ticker}", needed=needed, found=0)
        if as_of is None and asset.newest is not None:
            return asset.newest
        self._models.require_basis(ticker, self.calendar)
        position = len(self.calendar) - 1
        if as_of is not None:
            position = int(np.searchsorted(self.calendar, np.datetime64(as_of, "D"), side="right")) - 1
        end = asset.rows.last_row(position)
        if end < 0 or not asset.rows.usable[end]:
            asset.rows.refuse(end)
        return self._window(asset.rows, end, position)

    def window_of_bars(
        self, ticker: str, bars: Mapping[str, npt.ArrayLike], *, adjusted: bool, whole_history: bool = False
    ) -> Window:
        """The window that ends at the last of a caller's own bars.

        Args:
            ticker: whose model to ask.
            bars: session (dates, ascending), open, high, low, close, best_bid, best_ask (BRL per share; a bid or ask
                of 0: no quote), quantity (shares): each (rows,).
            adjusted: prices and quantities are comparable with the last bar's; else they are as traded, and the share
                events that the lake knows of are taken out.
            whole_history: the first bar is the asset's first ever, so that no warm-up is missing.

        Raises:
            UnknownTickerError: the release has no such ticker.
            TooFewSessionsError: fewer bars than one window takes, or a gap in it.
            DataError: a bad value; the message names field, row and session. Or the lake ends before the model's
                anchor.
        """
        asset = self._asset(ticker)
        self._models.require_basis(ticker, self.calendar)
        columns = check_bars(ticker, bars)
        data, sessions = self._models.data(ticker), columns["session"]
        warm_up = INVALID_ROWS if whole_history else WARMUP_SESSIONS
        needed, found = warm_up + data.lookback, len(sessions)
        if found < needed:
            raise TooFewSessionsError(
                f"{ticker} was sent with {found} sessions, expected at least {describe_needed(warm_up, data.lookback)}",
                needed=needed,
                found=found,
                hint="send more history, or declare that the bars are the asset's whole history",
            )
        model = self._models.of[ticker]
        basis, factors = 1.0, np.ones(found)
        if asset is not None:
            known, adjustment = asset.rows.sessions, asset.adjustment
            basis = float(adjustment_at(known, adjustment, np.datetime64(model.anchor)))
            factors = adjustment_at(known, adjustment, np.full(found, sessions[-1]) if adjusted else sessions)
        rows = make_rows(
            ticker,
            {**columns, "adjustment": factors},
            position=positions_of(sessions, self.calendar),
            basis=basis,
            scaler=model.scaler,
            data=data,
            warm_up=warm_up,
        )
        if not rows.usable[found - 1]:
            rows.refuse(found - 1)
        window = self._window(rows, found - 1, int(rows.position[-1]))
        if not (np.abs(window.rows) < LARGEST_INPUT).all():
            raise DataError(f"{ticker}'s bars up to {sessions[-1]} give features beyond any number a model can take")
        return window

    def score(self, windows: Sequence[Window]) -> pa.Table:
        """Scores of any mixture of windows in one batched pass, in their order; columns of SCORES."""
        if not windows:
            return SCORES.empty_table()
        assert all(window.release_id == self.release_id for window in windows), "windows of another release"
        tickers = [window.ticker for window in windows]
        sessions = np.array([window.session for window in windows], dtype="datetime64[D]")
        return tabulate_scores(
            self._models.predict(tickers, [window.rows for window in windows]),
            tickers=tickers,
            sessions=sessions,
            price=np.array([window.price for window in windows]),
            release_id=self.release_id,
            model_sha256=[self._models.of[ticker].model_sha256 for ticker in tickers],
            source=[self._models.source[ticker] for ticker in tickers],
            age_sessions=np.array([window.age_sessions for window in windows], dtype=np.int32),
            stale_after=self.stale_after,
            in_sample=self._models.in_sample(tickers, sessions),
        )

    def score_all(
        self, tickers: Sequence[str] | None = None, as_of: date | None = None
    ) -> tuple[pa.Table, list[Skipped]]:
        """Scores of many assets at one day, and those that have none.

        Args:
            tickers: None: all.
            as_of: as for `locate`.

        Raises:
            UnknownTickerError: the release has no such ticker.
        """
        windows, skipped = [], []
        for ticker in self.tickers if tickers is None else tickers:
            try:
                windows.append(self.locate(ticker, as_of))
            except UnknownTickerError:
                raise
            except TooFewSessionsError as error:
                skipped.append(Skipped(ticker=ticker, reason=error.message, needed=error.needed, found=error.found))
            except DataError as error:
                skipped.append(Skipped(ticker=ticker, reason=error.message))
        return self.score(windows), skipped

    def history(self, ticker: str, first: date, last: date) -> pa.Table:
        """Scores of one asset at every session from first to last that has a window; columns of SCORES.

        Raises:
            UnknownTickerError: the release has no such ticker.
            DataError: the lake ends before the model's anchor.
        """
        asset = self._asset(ticker)
        self._models.require_basis(ticker, self.calendar)
        return SCORES.empty_table() if asset is None else score_history(self._models, asset.rows, (first, last))

    def _asset(self, ticker: str) -> _Resident | None:
        """What is resident of an asset; None: the lake has no bars of it."""
        if ticker not in self._models.of:
            raise self._models.unknown(ticker)
        return self._assets.get(ticker)

    def _keep(self, ticker: str, columns: Columns) -> _Resident:
        rows = rows_of_lake(ticker, columns, self.calendar, self._models.of[ticker], self._models.data(ticker))
        end = len(rows.sessions) - 1
        newest = self._window(rows, end, len(self.calendar) - 1) if rows.usable[end] else None
        try:
            self._models.require_basis(ticker, self.calendar)
        except DataError:
            newest = None  # `locate` says why
        return _Resident(rows=rows, adjustment=columns["adjustment"].astype(np.float64), newest=newest)

    def _window(self, rows: AssetRows, end: int, position: int) -> Window:
        """The window of a usable row, asked for at a position of the calendar."""
        return Window(
            release_id=self.release_id,
            ticker=rows.ticker,
            session=rows.sessions[end].astype(object),
            price=float(rows.close[end]),
            age_sessions=position - int(rows.position[end]),
            rows=rows.features[end - rows.lookback + 1 : end + 1],
            needed=rows.warm_up + rows.lookback,
            found=end + 1,
        )
