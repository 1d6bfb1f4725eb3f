"""One asset ready to train on: its rows once, windows as the index of their last row, split by time.

    rows     0 ........ valid ............................ e ........ e + horizon
    window                     [e - lookback + 1 ........ e]            target

A window may be used when neither it nor its target crosses a gap of more than `max_gap` exchange sessions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from b3dist.config import DataConfig
from b3dist.data.features import FEATURE_NAMES, INPUT_COLUMNS, INVALID_ROWS, Array, Bars, compute_features
from b3dist.data.labels import Actions, future_return, label_actions
from b3dist.data.schema import ACTIONS
from b3dist.errors import DataError, InsufficientDataError

BAR_COLUMNS = ("session", *INPUT_COLUMNS, "ex_mark", "distribution_number", "adjustment")
"""The lake's columns an asset is built from."""
SPLITS = ("train", "val", "test")
CASH_LETTERS = frozenset("DJRC")
"""Ex-marks of cash: dividend, interest on equity, income (rendimento), capital return."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Windows of one part, ascending in time; every array is (n,)."""

    ends: Rows
    """Row of each window's last session."""
    action: Actions
    """0 buy, 1 sell, 2 hold."""
    future_return: Array
    """close[e + horizon] / close[e] - 1, a fraction."""
    future_close: Array
    """close[e + horizon] at the anchor's basis, BRL."""
    spans_cash: npt.NDArray[np.bool_]
    """Whether a cash ex-date lies in (e, e + horizon]: the return excludes that dividend."""

    def __len__(self) -> int:
        return len(self.ends)


@dataclass(frozen=True, kw_only=True)
class Scaler:
    """Mean and deviation of each feature over the training rows: (F,) float64; a constant column has scale 1."""

    mean: Array
    scale: Array

    def transform(self, features: Array) -> npt.NDArray[np.float32]:
        """z-scores of features: (rows, F)."""
        return ((features - self.mean) / self.scale).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class AssetData:
    """Everything training and evaluation need of one asset."""

    ticker: str
    sessions: npt.NDArray[np.datetime64]
    """(rows,) ascending."""
    close: Array
    """(rows,) BRL at the anchor's basis."""
    features: npt.NDArray[np.float32]
    """(rows, F) z-scores; NaN in rows that no window may contain."""
    feature_names: tuple[str, ...]
    scaler: Scaler
    train: Split
    val: Split
    test: Split
    anchor: date
    """Last session a training window sees: prices are comparable with this one."""
    dropped: Mapping[str, int]
    """Windows left out, by reason: window_gap, target_gap, purge."""

    def part(self, name: str) -> Split:
        """The split called train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def prepare_asset(
    ticker: str, bars: Mapping[str, npt.ArrayLike], calendar: npt.NDArray[np.datetime64], config: DataConfig
) -> AssetData:
    """Build an asset's features, labels and split from its bars.

    Args:
        ticker: name used in messages.
        bars: BAR_COLUMNS, each (rows,), ascending by session, prices as traded.
        calendar: all exchange sessions, ascending: what a gap is measured in.
        config: lookback, horizon, split, feature and label set.

    Raises:
        InsufficientDataError: too few sessions, a price that never moves, or a part without windows.
        DataError: an open or close of 0.
    """
    first, columns = _limit_sessions(ticker, bars, config)
    sessions, adjustment = columns["session"].astype("datetime64[D]"), columns["adjustment"].astype(np.float64)
    _refuse_zero_prices(ticker, columns, sessions)
    first_row = max(first, INVALID_ROWS)
    ends, dropped = _usable_ends(np.searchsorted(calendar, sessions), first_row=first_row, config=config)
    # The basis does not matter to a label: both label sets compare prices with each other only.
    actions = label_actions(Bars.adjusted(columns, adjustment), config)
    parts, purged = _split_by_time(ticker, ends[actions[ends] >= 0], config)
    anchor_row = int(parts[0][-1])
    at_anchor = Bars.adjusted(columns, adjustment / adjustment[anchor_row])
    _refuse_standing_price(ticker, at_anchor.close[: anchor_row + 1])
    features = compute_features(at_anchor, config.feature_set)
    scaler = fit_scaler(features[first_row : anchor_row + 1])
    cash = _cash_ex_dates(columns)
    train, val, test = (_label_part(part, actions, at_anchor.close, cash, config.horizon) for part in parts)
    return AssetData(
        ticker=ticker,
        sessions=sessions,
        close=at_anchor.close,
        features=scaler.transform(features),
        feature_names=FEATURE_NAMES[config.feature_set],
        scaler=scaler,
        train=train,
        val=val,
        test=test,
        anchor=sessions[anchor_row].astype(object),
        dropped={**dropped, "purge": purged},
    )


def fit_scaler(features: Array) -> Scaler:
    """Mean and standard deviation (ddof 0) of features: (rows, F), as scikit-learn's StandardScaler computes them."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    constant = deviation <= 10 * np.finfo(np.float64).eps * np.maximum(np.abs(mean), 1e-300)
    return Scaler(mean=mean, scale=np.where(constant, 1.0, deviation))


def count_actions(actions: Actions) -> dict[str, int]:
    """Windows per action name, zero included."""
    counts = np.bincount(actions, minlength=len(ACTIONS))
    return {name: int(count) for name, count in zip(ACTIONS, counts, strict=True)}


def _refuse_zero_prices(
    ticker: str, columns: Mapping[str, npt.NDArray[Any]], sessions: npt.NDArray[np.datetime64]
) -> None:
    """Refuse a bar whose open or close is 0: features and returns divide by them."""
    for name in ("open", "close"):
        zero = columns[name] == 0
        if zero.any():
            raise DataError(
                f"{ticker}'s {name} on {sessions[int(np.argmax(zero))]} is 0 ({int(zero.sum())} such sessions),"
                " expected a price above 0",
                hint="b3dist check lists such bars (impossible_bar); leave them out with --to",
            )


def _limit_sessions(
    ticker: str, bars: Mapping[str, npt.ArrayLike], config: DataConfig
) -> tuple[int, dict[str, npt.NDArray[Any]]]:
    """The first row a window may contain, and every column up to the last session used: --from and --to."""
    sessions = np.asarray(bars["session"]).astype("datetime64[D]")
    last = np.datetime64(config.to_session) if config.to_session else sessions[-1]
    num_rows = int(np.searchsorted(sessions, last, side="right"))
    first = int(np.searchsorted(sessions, np.datetime64(config.from_session))) if config.from_session else 0
    if num_rows - first < config.min_sessions:
        raise InsufficientDataError(
            f"{ticker} has {max(num_rows - first, 0)} sessions, expected at least {config.min_sessions}",
            hint="lower --min-sessions, or use more history",
        )
    return first, {name: np.asarray(values)[:num_rows] for name, values in bars.items()}


def _refuse_standing_price(ticker: str, close: Array) -> None:
    if np.ptp(close) == 0:
        raise InsufficientDataError(f"{ticker}'s close never moves in its training part ({close[0]:g} BRL)")


def _label_part(ends: Rows, actions: Actions, close: Array, cash: npt.NDArray[np.bool_], horizon: int) -> Split:
    """One part's windows with what they are asked; close is at the anchor's basis."""
    return Split(
        ends=ends,
        action=actions[ends],
        future_return=future_return(close, horizon)[ends],
        future_close=close[ends + horizon],
        spans_cash=np.stack([cash[ends + step] for step in range(1, horizon + 1)]).any(axis=0),
    )


def _usable_ends(position: npt.NDArray[np.intp], *, first_row: int, config: DataConfig) -> tuple[Rows, dict[str, int]]:
    """Last rows of all windows that, with their targets, cross no gap; and how many were dropped for one."""
    breaks = np.zeros(len(position), dtype=np.int64)
    breaks[1:] = np.cumsum(np.diff(position) > config.max_gap)
    ends = np.arange(first_row + config.lookback - 1, len(position) - config.horizon, dtype=np.int64)
    window_gap = breaks[ends] != breaks[ends - config.lookback + 1]
    target_gap = ~window_gap & (breaks[ends + config.horizon] != breaks[ends])
    dropped = {"window_gap": int(window_gap.sum()), "target_gap": int(target_gap.sum())}
    return ends[~window_gap & ~target_gap], dropped


def _split_by_time(ticker: str, ends: Rows, config: DataConfig) -> tuple[tuple[Rows, Rows, Rows], int]:
    """Train, validation and test windows; those whose target reaches the next part's first last row are purged."""
    num_train = int(len(ends) * config.train_fraction)
    num_val = int(len(ends) * config.validation_fraction)
    train, val, test = np.split(ends, [num_train, num_train + num_val])
    kept_train = train[train + config.horizon < val[0]] if len(val) else train
    kept_val = val[val + config.horizon < test[0]] if len(test) else val
    for name, part in zip(SPLITS, (kept_train, kept_val, test), strict=True):
        if len(part) == 0:
            raise InsufficientDataError(
                f"{ticker} has {len(ends)} usable windows, too few for a {name} part", hint="use more history"
            )
    return (kept_train, kept_val, test), len(ends) - len(kept_train) - len(kept_val) - len(test)


def _cash_ex_dates(columns: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.bool_]:
    """Rows on which the distribution number grew under a mark of cash: (rows,)."""
    number = np.asarray(columns["distribution_number"], dtype=np.int64)
    stepped = np.zeros(len(number), dtype=bool)
    stepped[1:] = number[1:] != number[:-1]
    marks = [bool(CASH_LETTERS & set(str(mark)[1:])) for mark in columns["ex_mark"]]
    cash: npt.NDArray[np.bool_] = stepped & np.asarray(marks, dtype=bool)
    return cash
