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
from b3dist.errors import ConfigError, DataError, InsufficientDataError

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


@dataclass(frozen=True, kw_only=True)
class History:
    """What of an asset's bars a model may use, before it is divided into parts."""

    ticker: str
    columns: Mapping[str, npt.NDArray[Any]]
    """BAR_COLUMNS, each (rows,), up to the last session used."""
    sessions: npt.NDArray[np.datetime64]
    """(rows,) ascending."""
    first_row: int
    """First row a window may contain."""
    ends: Rows
    """Last rows of all usable windows."""
    actions: Actions
    """(rows,) labels; -1 where not known."""
    dropped: Mapping[str, int]
    """Windows left out, by reason."""


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
    history = read_history(ticker, bars, calendar, config)
    parts, purged = split_windows(history, config)
    for name, part in zip(SPLITS, parts, strict=True):
        if len(part) == 0:
            raise _without_part(history, name, config)
    anchor_row = int(parts[0][-1])
    at_anchor = bars_at(history, anchor_row)
    refuse_standing_price(ticker, at_anchor.close[: anchor_row + 1])
    features = compute_features(at_anchor, config.feature_set)
    return assemble(
        history,
        parts,
        anchor_row=anchor_row,
        features=features,
        scaler=fit_scaler(features[history.first_row : anchor_row + 1]),
        config=config,
        purged=purged,
    )


def read_history(
    ticker: str, bars: Mapping[str, npt.ArrayLike], calendar: npt.NDArray[np.datetime64], config: DataConfig
) -> History:
    """An asset's usable windows and their labels, not yet divided; arguments as for `prepare_asset`.

    Raises:
        InsufficientDataError: too few sessions.
        DataError: an open or close of 0.
    """
    first, columns = _limit_sessions(ticker, bars, config)
    sessions, adjustment = columns["session"].astype("datetime64[D]"), columns["adjustment"].astype(np.float64)
    _refuse_zero_prices(ticker, columns, sessions)
    first_row = max(first, INVALID_ROWS)
    ends, dropped = _usable_ends(np.searchsorted(calendar, sessions), first_row=first_row, config=config)
    # The basis does not matter to a label: both label sets compare prices with each other only.
    actions = label_actions(Bars.adjusted(columns, adjustment), config)
    return History(
        ticker=ticker,
        columns=columns,
        sessions=sessions,
        first_row=first_row,
        ends=ends[actions[ends] >= 0],
        actions=actions,
        dropped=dropped,
    )


def require_calendar_cut(config: DataConfig) -> None:
    """Refuse half a calendar cut, or one in the wrong order.

    Raises:
        ConfigError: only one of the two cuts is given, or they are in the wrong order.
    """
    first, second = config.validation_from, config.test_from
    if first is None and second is None:
        return
    if first is None or second is None or first >= second:
        raise ConfigError(
            f"a calendar cut needs data.validation_from before data.test_from, got {first} and {second}",
            hint="give both, or neither to split by fractions",
        )


def split_windows(history: History, config: DataConfig) -> tuple[tuple[Rows, Rows, Rows], int]:
    """Train, validation and test windows, any of which may be empty, and how many lie on a border.

    By the calendar where the configuration gives both cuts, else by the asset's own fractions. Windows whose target
    reaches the next part's first last-seen session are purged.

    Raises:
        ConfigError: as `require_calendar_cut`.
    """
    ends, horizon = history.ends, config.horizon
    require_calendar_cut(config)
    if config.validation_from is None:
        return _split_by_fractions(ends, config)
    last, target = history.sessions[ends], history.sessions[ends + horizon]
    validation_from, test_from = np.datetime64(config.validation_from), np.datetime64(config.test_from)
    parts = (
        ends[target < validation_from],
        ends[(last >= validation_from) & (target < test_from)],
        ends[last >= test_from],
    )
    return parts, len(ends) - sum(len(part) for part in parts)


def bars_at(history: History, anchor_row: int) -> Bars:
    """The bars with prices comparable with those of a row."""
    return bars_at_basis(history.columns, float(history.columns["adjustment"][anchor_row]))


def assemble(
    history: History,
    parts: tuple[Rows, Rows, Rows],
    *,
    anchor_row: int,
    features: Array,
    scaler: Scaler,
    config: DataConfig,
    purged: int,
) -> AssetData:
    """An asset's data from its parts, its features: (rows, F) at the anchor's basis, and their scaler."""
    close = bars_at(history, anchor_row).close
    cash = _cash_ex_dates(history.columns)
    train, val, test = (_label_part(part, history.actions, close, cash, config.horizon) for part in parts)
    return AssetData(
        ticker=history.ticker,
        sessions=history.sessions,
        close=close,
        features=scaler.transform(features),
        feature_names=FEATURE_NAMES[config.feature_set],
        scaler=scaler,
        train=train,
        val=val,
        test=test,
        anchor=history.sessions[anchor_row].astype(object),
        dropped={**history.dropped, "purge": purged},
    )


def bars_at_basis(columns: Mapping[str, npt.ArrayLike], basis: float) -> Bars:
    """Bars as traded made comparable with a session whose `adjustment` is basis; training and scoring both call it.

    Args:
        columns: INPUT_COLUMNS and adjustment, each (rows,).
        basis: the anchor's adjustment.
    """
    return Bars.adjusted(columns, np.asarray(columns["adjustment"], dtype=np.float64) / basis)


def count_gaps(position: npt.NDArray[np.intp], max_gap: int) -> Rows:
    """Gaps of more than max_gap exchange sessions up to each row: (rows,).

    Rows with equal counts have no gap between them: the rule for windows and targets, in training and scoring alike.

    Args:
        position: (rows,) index of each row's session in the exchange's calendar, ascending.
        max_gap: most exchange sessions between two neighbouring bars.
    """
    gaps = np.zeros(len(position), dtype=np.int64)
    gaps[1:] = np.cumsum(np.diff(position) > max_gap)
    return gaps


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
                f"{ticker}'s {name} on {sessions[int(np.argmax(zero))]} is 0 ({int(zero.sum())} such in all),"
                " expected a price above 0",
                hint="ingest a corrected file, or end before that session with --to; b3dist check lists all such bars"
                " (impossible_bar)",
            )


def _without_part(history: History, name: str, config: DataConfig) -> InsufficientDataError:
    """Why an asset has no train, val or test part: too short a history, or one on the wrong side of a calendar cut."""
    if config.validation_from is None or len(history.ends) == 0:
        return InsufficientDataError(
            f"{history.ticker} has {len(history.ends)} usable windows, too few for a {name} part",
            hint="use more history",
        )
    missing = {
        "train": f"none with its target before the calendar cut {config.validation_from}",
        "val": f"none within the calendar cut {config.validation_from} to {config.test_from}",
        "test": f"none from the calendar cut {config.test_from} on",
    }[name]
    first, last = history.sessions[history.ends[[0, -1]]]
    return InsufficientDataError(
        f"{history.ticker} has no {name} part: its usable windows end between {first} and {last}, {missing}",
        hint="use another cut, or a pooled model, which needs no windows of the asset before it",
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


def refuse_standing_price(ticker: str, close: Array) -> None:
    """Refuse closes of a training part: (n,) that never move.

    Raises:
        InsufficientDataError: they do not.
    """
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
    gaps = count_gaps(position, config.max_gap)
    ends = np.arange(first_row + config.lookback - 1, len(position) - config.horizon, dtype=np.int64)
    window_gap = gaps[ends] != gaps[ends - config.lookback + 1]
    target_gap = ~window_gap & (gaps[ends + config.horizon] != gaps[ends])
    dropped = {"window_gap": int(window_gap.sum()), "target_gap": int(target_gap.sum())}
    return ends[~window_gap & ~target_gap], dropped


def _split_by_fractions(ends: Rows, config: DataConfig) -> tuple[tuple[Rows, Rows, Rows], int]:
    num_train = int(len(ends) * config.train_fraction)
    num_val = int(len(ends) * config.validation_fraction)
    train, val, test = np.split(ends, [num_train, num_train + num_val])
    kept_train = train[train + config.horizon < val[0]] if len(val) else train
    kept_val = val[val + config.horizon < test[0]] if len(test) else val
    return (kept_train, kept_val, test), len(ends) - len(kept_train) - len(kept_val) - len(test)


def _cash_ex_dates(columns: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.bool_]:
    """Rows on which the distribution number grew under a mark of cash: (rows,)."""
    number = np.asarray(columns["distribution_number"], dtype=np.int64)
    stepped = np.zeros(len(number), dtype=bool)
    stepped[1:] = number[1:] != number[:-1]
    marks = [bool(CASH_LETTERS & set(str(mark)[1:])) for mark in columns["ex_mark"]]
    cash: npt.NDArray[np.bool_] = stepped & np.asarray(marks, dtype=bool)
    return cash
