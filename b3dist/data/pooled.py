"""All assets ready for one model: their rows once, in one table, and windows as (asset, last row), cut by the calendar.

    rows      asset 0 ............ | asset 1 ....... | asset 2 ............
    window         [start ... end]                        [start ... end]

No window spans two assets: each ends at a usable row of its own asset. One pair of dates divides all assets, for with a
cut of its own per asset the model would train on one asset's sessions of which another is tested.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from b3dist.config import DataConfig
from b3dist.data.features import Array, compute_features
from b3dist.data.labels import Actions
from b3dist.data.lake import Lake
from b3dist.data.windows import (
    BAR_COLUMNS,
    SPLITS,
    AssetData,
    History,
    Rows,
    Scaler,
    assemble,
    bars_at,
    fit_scaler,
    read_history,
    refuse_standing_price,
    split_windows,
)
from b3dist.errors import DataError, InsufficientDataError, describe_failure

OWN_SCALE_ROWS = 120
"""Training rows from which an asset is scaled by itself: the deviation of fewer is known to worse than 6 %."""


@dataclass(frozen=True, kw_only=True)
class PooledPart:
    """One part's windows over all assets, by asset, then by time; every array is (n,)."""

    asset: Rows
    """Number of the window's asset."""
    ends: Rows
    """Row of the pooled table of the window's last session."""
    action: Actions
    """0 buy, 1 sell, 2 hold."""
    future_return: Array
    """Fraction, as `Split` has it."""

    def __len__(self) -> int:
        return len(self.ends)


@dataclass(frozen=True, kw_only=True)
class PooledData:
    """Everything one model over many assets needs."""

    assets: tuple[AssetData, ...]
    """In alphabetical order; parts may be empty; their features are views of `rows`."""
    rows: npt.NDArray[np.float32]
    """(rows of all assets, F) z-scores."""
    first_rows: Rows
    """(assets,) where each asset begins in `rows`."""
    train: PooledPart
    val: PooledPart
    test: PooledPart
    scaler: Scaler
    """Over the training rows of all assets: of v1 every asset's, of v2 that of assets too short for their own."""
    own_scale: npt.NDArray[np.bool_]
    """(assets,) whether an asset is scaled by its own training rows."""
    config: DataConfig
    """As given, with the calendar cut filled in."""
    skipped: Mapping[str, str]
    """Assets left out by rule, and why."""
    failed: Mapping[str, str]
    """Assets left out because a value of their bars is impossible, and which."""

    def part(self, name: str) -> PooledPart:
        """The part called train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def load_pooled(lake: Lake, tickers: Iterable[str], config: DataConfig) -> PooledData:
    """Pool assets of a lake; one whose bars hold an impossible value is left out alone.

    Raises:
        InsufficientDataError: nothing is left to train, to select or to test on.
        LakeError: a file of the lake is gone or damaged, which is no single asset's fault.
    """
    calendar = lake.calendar()
    histories, left_out = [], LeftOut({}, {})
    for ticker in sorted(tickers):
        bars = lake.bars(ticker, BAR_COLUMNS)
        columns = {name: bars[name].to_numpy() for name in BAR_COLUMNS}
        with left_out.noting(ticker):
            histories.append(read_history(ticker, columns, calendar, config))
    if not histories and left_out.failed:
        example = next(iter(left_out.failed.values()))
        raise InsufficientDataError(
            f"no asset is left to train on: {len(left_out.failed)} failed, e.g. {example}",
            hint="b3dist check lists impossible bars (impossible_bar)",
        )
    return pool_histories(histories, config, left_out=left_out)


class LeftOut(NamedTuple):
    """Assets without windows in the pool, and why, by ticker."""

    skipped: dict[str, str]
    failed: dict[str, str]

    @contextlib.contextmanager
    def noting(self, ticker: str) -> Iterator[None]:
        """Leave an asset out if its data is too little or impossible."""
        try:
            yield
        except InsufficientDataError as error:
            self.skipped[ticker] = error.message
        except DataError as error:
            self.failed[ticker] = describe_failure(error)


def pool_histories(histories: Sequence[History], config: DataConfig, *, left_out: LeftOut | None = None) -> PooledData:
    """Divide all assets by one calendar cut, scale them and put their rows into one table.

    Features of set v1 are levels in BRL and shares and share one scaler, as in the published model. Those of v2 are
    scaled by each asset's own training rows, so that a new asset can be scored from its own history; one with fewer
    than OWN_SCALE_ROWS of them (listed after the cut, for example) gets the scaler of all.

    Raises:
        InsufficientDataError: nothing is left to train, to select or to test on.
    """
    config = with_calendar_cut(histories, config)
    left_out = left_out or LeftOut({}, {})
    drafts = []
    for history in sorted(histories, key=lambda history: history.ticker):
        with left_out.noting(history.ticker):
            drafts.append(_Draft.of(history, config))
    training = [draft.training_rows() for draft in drafts]
    if not any(len(rows) for rows in training):
        raise InsufficientDataError("no asset has a window to train on", hint="use more history, or an earlier cut")
    pooled_scaler = fit_scaler(np.concatenate(training))
    own = np.array([config.feature_set == "v2" and len(rows) >= OWN_SCALE_ROWS for rows in training])
    assets = [
        draft.finish(fit_scaler(rows) if scaled else pooled_scaler, config)
        for draft, rows, scaled in zip(drafts, training, own, strict=True)
    ]
    return _join(assets, scaler=pooled_scaler, own_scale=own, config=config, left_out=left_out)


def with_calendar_cut(histories: Sequence[History], config: DataConfig) -> DataConfig:
    """The configuration with both cuts: the given ones, or the sessions at which its fractions of all windows end."""
    if config.validation_from is not None or config.test_from is not None:
        return config
    if not any(len(history.ends) for history in histories):
        raise InsufficientDataError("no asset has a usable window", hint="lower --min-sessions, or use more history")
    ends = np.sort(np.concatenate([history.sessions[history.ends] for history in histories]))
    num_train = int(len(ends) * config.train_fraction)
    num_val = int(len(ends) * config.validation_fraction)
    return dataclasses.replace(
        config,
        validation_from=ends[num_train].astype("datetime64[D]").astype(object),
        test_from=ends[num_train + num_val].astype("datetime64[D]").astype(object),
    )


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """An asset divided, but not scaled yet."""

    history: History
    parts: tuple[Rows, Rows, Rows]
    purged: int
    anchor_row: int
    features: Array
    """(rows, F) at the anchor's basis."""

    @classmethod
    def of(cls, history: History, config: DataConfig) -> "_Draft":
        parts, purged = split_windows(history, config)
        if not any(len(part) for part in parts):
            raise InsufficientDataError(f"{history.ticker} has no usable window")
        # An asset without a training part is anchored where its first window ends: known when that is scored.
        anchor_row = int(parts[0][-1]) if len(parts[0]) else int(np.concatenate(parts)[0])
        at_anchor = bars_at(history, anchor_row)
        if len(parts[0]):
            refuse_standing_price(history.ticker, at_anchor.close[: anchor_row + 1])
        return cls(
            history=history,
            parts=parts,
            purged=purged,
            anchor_row=anchor_row,
            features=compute_features(at_anchor, config.feature_set),
        )

    def training_rows(self) -> Array:
        """Features of the rows that training windows see: (n, F)."""
        first = self.history.first_row
        return self.features[first : self.anchor_row + 1] if len(self.parts[0]) else self.features[:0]

    def finish(self, scaler: Scaler, config: DataConfig) -> AssetData:
        return assemble(
            self.history,
            self.parts,
            anchor_row=self.anchor_row,
            features=self.features,
            scaler=scaler,
            config=config,
            purged=self.purged,
        )


def _join(
    assets: Sequence[AssetData],
    *,
    scaler: Scaler,
    own_scale: npt.NDArray[np.bool_],
    config: DataConfig,
    left_out: LeftOut,
) -> PooledData:
    rows = np.concatenate([asset.features for asset in assets])
    first_rows = np.cumsum([0, *(len(asset.features) for asset in assets)], dtype=np.int64)[:-1]
    views = tuple(
        dataclasses.replace(asset, features=rows[first : first + len(asset.features)])
        for asset, first in zip(assets, first_rows.tolist(), strict=True)
    )
    parts = {name: _join_part(views, first_rows, name) for name in SPLITS}
    for name, part in parts.items():
        if len(part) == 0:
            raise InsufficientDataError(
                f"the cut at {config.validation_from} and {config.test_from} leaves no window for the {name} part of"
                f" any of {len(assets)} assets",
                hint="use more history or another cut",
            )
    return PooledData(
        assets=views,
        rows=rows,
        first_rows=first_rows,
        scaler=scaler,
        own_scale=own_scale,
        config=config,
        skipped=left_out.skipped,
        failed=left_out.failed,
        **parts,
    )


def _join_part(assets: Sequence[AssetData], first_rows: Rows, name: str) -> PooledPart:
    splits = [asset.part(name) for asset in assets]
    return PooledPart(
        asset=np.repeat(np.arange(len(splits)), [len(split) for split in splits]),
        ends=np.concatenate([split.ends + first for split, first in zip(splits, first_rows, strict=True)]),
        action=np.concatenate([split.action for split in splits]),
        future_return=np.concatenate([split.future_return for split in splits]),
    )
