"""A release and a lake, ready to answer: every asset's rows and weights resident, nothing left to read."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from b3dist.data.features import INVALID_ROWS, WARMUP_SESSIONS
from b3dist.data.lake import Lake
from b3dist.errors import DataError, TooFewSessionsError, UnknownTickerError
from b3dist.release import Release, ReleasedModel
from b3dist.scoring.callers_bars import check_bars, positions_of
from b3dist.scoring.forward import Outputs, StackedModels
from b3dist.scoring.history import score_history
from b3dist.scoring.rows import AssetRows, Columns, adjustment_at, make_rows, read_columns
from b3dist.scoring.table import SCORES, tabulate_scores
from b3dist.scoring.windows import Window

Which = Literal["served", "evaluated"]
STALE_AFTER = 5
"""Exchange sessions beyond which a score is stale."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An asset without a score."""

    ticker: str
    reason: str
    needed: int | None = None
    """Sessions a window takes, where there were too few."""
    found: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Resident:
    """One asset of the release."""

    model: ReleasedModel
    adjustment_sessions: npt.NDArray[np.datetime64]
    adjustment: npt.NDArray[np.float64]
    """(rows,) of the lake's bars."""
    basis: float
    """The anchor's adjustment."""
    rows: AssetRows | None
    """None: the lake has no bars of it."""
    newest: Window | None
    """The window of the lake's newest session; None where there is none."""


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
        models = choose_models(release, which, tickers)
        self._stacks = {index: StackedModels(release.groups[index].weights) for index in _groups_of(models)}
        self._mean = {index: _by_slot(release, models, index, "mean") for index in self._stacks}
        self._scale = {index: _by_slot(release, models, index, "scale") for index in self._stacks}
        self._assets: dict[str, _Resident] = {}
        for ticker, columns in read_columns(lake, models):
            self._assets[ticker] = self._keep(ticker, models[ticker], columns)
        empty = np.array([], dtype="datetime64[D]")
        for ticker in models.keys() - self._assets.keys():
            self._assets[ticker] = _Resident(
                model=models[ticker],
                adjustment_sessions=empty,
                adjustment=np.array([1.0]),
                basis=1.0,
                rows=None,
                newest=None,
            )

    @property
    def tickers(self) -> list[str]:
        """Every ticker it has a model of, in alphabetical order."""
        return sorted(self._assets)

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
            DataError: a bar of it is impossible.
        """
        asset = self._asset(ticker)
        if as_of is None and asset.newest is not None:
            return asset.newest
        if asset.rows is None:
            needed = INVALID_ROWS + self.release.groups[asset.model.group].data.lookback
            raise TooFewSessionsError(f"the lake has no bars of {ticker}", needed=needed, found=0)
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
            DataError: a bad value; the message names field, row and session.
        """
        asset = self._asset(ticker)
        columns = check_bars(ticker, bars)
        data = self.release.groups[asset.model.group].data
        warm_up = INVALID_ROWS if whole_history else WARMUP_SESSIONS
        needed, found = warm_up + data.lookback, len(columns["session"])
        if found < needed:
            raise TooFewSessionsError(
                f"{ticker} was sent with {found} sessions, expected at least {needed}",
                needed=needed,
                found=found,
                hint="send more history, or declare that the bars are the asset's whole history",
            )
        known, factors = asset.adjustment_sessions, asset.adjustment
        sessions = columns["session"]
        when = np.full(found, sessions[-1]) if adjusted else sessions
        row = np.maximum(np.searchsorted(known, when, side="right") - 1, 0)
        rows = make_rows(
            ticker,
            {**columns, "adjustment": factors[row]},
            position=positions_of(sessions, self.calendar),
            basis=asset.basis,
            scaler=asset.model.scaler,
            data=data,
            warm_up=warm_up,
        )
        if not rows.usable[found - 1]:
            rows.refuse(found - 1)
        window = self._window(rows, found - 1, int(rows.position[-1]))
        if not np.isfinite(window.rows).all():
            raise DataError(f"{ticker}'s bars up to {sessions[-1]} give features beyond any number a model can take")
        return window

    def score(self, windows: Sequence[Window]) -> pa.Table:
        """Scores of any mixture of windows in one batched pass, in their order; columns of SCORES."""
        if not windows:
            return SCORES.empty_table()
        assert all(window.release_id == self.release_id for window in windows), "windows of another release"
        models = [self._assets[window.ticker].model for window in windows]
        groups = np.array([model.group for model in models])
        slots = np.array([model.slot for model in models])
        outputs, mean, scale = self._run(groups, slots, windows)
        return tabulate_scores(
            outputs,
            mean=mean,
            scale=scale,
            tickers=[window.ticker for window in windows],
            sessions=np.array([window.session for window in windows], dtype="datetime64[D]"),
            price=np.array([window.price for window in windows]),
            release_id=self.release_id,
            model_sha256=[model.model_sha256 for model in models],
            age_sessions=np.array([window.age_sessions for window in windows], dtype=np.int32),
            stale_after=self.stale_after,
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
        """
        asset = self._asset(ticker)
        if asset.rows is None:
            return SCORES.empty_table()
        stack = self._stacks[asset.model.group]
        return score_history(asset.rows, asset.model, stack, first=first, last=last, release_id=self.release_id)

    def _asset(self, ticker: str) -> _Resident:
        try:
            return self._assets[ticker]
        except KeyError:
            raise _unknown(ticker, self._assets, self.release_id) from None

    def _keep(self, ticker: str, model: ReleasedModel, columns: Columns) -> _Resident:
        sessions, adjustment = columns["session"], columns["adjustment"].astype(np.float64)
        basis = adjustment_at(sessions, adjustment, model.anchor)
        position = np.searchsorted(self.calendar, sessions)
        data = self.release.groups[model.group].data
        rows = make_rows(ticker, columns, position=position, basis=basis, scaler=model.scaler, data=data)
        end = len(sessions) - 1
        newest = self._window(rows, end, len(self.calendar) - 1) if rows.usable[end] else None
        return _Resident(
            model=model,
            adjustment_sessions=sessions,
            adjustment=adjustment,
            basis=basis,
            rows=rows,
            newest=newest,
        )

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

    def _run(
        self, groups: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], windows: Sequence[Window]
    ) -> tuple[Outputs, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Outputs, and mean and scale of each model's return target: (N,)."""
        present = np.unique(groups)
        if len(present) == 1:
            index = int(present[0])
            outputs = self._stacks[index].outputs(slots, _gather(windows))
            return outputs, self._mean[index][slots], self._scale[index][slots]
        merged = Outputs(logits=torch.empty(len(windows), 3), returns=torch.empty(len(windows)))
        mean, scale = np.empty(len(windows)), np.empty(len(windows))
        for index in present.tolist():
            members = np.flatnonzero(groups == index)
            outputs = self._stacks[index].outputs(slots[members], _gather([windows[n] for n in members.tolist()]))
            merged.logits[torch.from_numpy(members)] = outputs.logits
            merged.returns[torch.from_numpy(members)] = outputs.returns
            mean[members], scale[members] = self._mean[index][slots[members]], self._scale[index][slots[members]]
        return merged, mean, scale


def choose_models(release: Release, which: Which, tickers: Collection[str] | None) -> dict[str, ReleasedModel]:
    """The models of some of a release's tickers (None: all), in alphabetical order.

    Raises:
        UnknownTickerError: the release has no such ticker.
    """
    for ticker in tickers or ():
        if ticker not in release.assets:
            raise _unknown(ticker, release.assets, release.release_id)
    wanted = sorted(release.assets if tickers is None else set(tickers))
    return {ticker: getattr(release.assets[ticker], which) for ticker in wanted}


def _unknown(ticker: str, known: Collection[str], release_id: str) -> UnknownTickerError:
    nearest = difflib.get_close_matches(ticker.upper(), known, n=3)
    hint = f"did you mean {', '.join(nearest)}?" if nearest else "`b3dist release show` lists what there is"
    return UnknownTickerError(f"release {release_id} has no model of {ticker}", hint=hint)


def _groups_of(models: Mapping[str, ReleasedModel]) -> list[int]:
    return sorted({model.group for model in models.values()})


def _by_slot(release: Release, models: Mapping[str, ReleasedModel], index: int, name: str) -> npt.NDArray[np.float64]:
    """Mean or scale of the return target of every slot of a group: (K,); 0 where the slot is not used."""
    values = np.zeros(len(next(iter(release.groups[index].weights.values()))))
    for model in models.values():
        if model.group == index:
            values[model.slot] = getattr(model.return_target, name)
    return values


def _gather(windows: Sequence[Window]) -> torch.Tensor:
    return torch.from_numpy(np.stack([window.rows for window in windows]))
