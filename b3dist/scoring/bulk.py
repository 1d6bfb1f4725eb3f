"""Scores of a whole lake without a server: one day of every asset, or every session of years, into one Parquet file.

An asset is read, scored and handed on before the next but a few is begun, so that memory does not grow with the lake.
"""

import contextlib
import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from b3dist.data.lake import Lake
from b3dist.errors import DataError, StorageError
from b3dist.release import Release
from b3dist.scoring.history import Span, count_left_out, score_history
from b3dist.scoring.models import ReleasedModels, Which
from b3dist.scoring.rows import Columns, read_columns, rows_of_lake
from b3dist.scoring.scorer import Scorer
from b3dist.scoring.table import SCORES
from b3dist.scoring.windows import Skipped

ROWS_PER_GROUP: Final = 65_536
"""Of the Parquet file: what is kept back until it is written."""
FACTS: Final = b"b3dist.scores"
"""Key in the Parquet file's metadata: JSON with rows, assets, stale, in_sample, skipped and left_out."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What came of one asset, or of one day."""

    table: pa.Table
    """Columns of SCORES."""
    skipped: list[Skipped]
    left_out: Counter[str] = field(default_factory=Counter)
    """Sessions of the range without a score, by reason: warm_up, gap, impossible_bar."""
    assets: int = 1
    """How many of them."""


@dataclass(kw_only=True)
class Totals:
    """What came of all; kept up to date while scores are written."""

    rows: int = 0
    stale: int = 0
    in_sample: int = 0
    """Rows in the part that their model was trained on."""
    assets: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def describe(self) -> dict[str, Any]:
        """What is said of scores beside how many there are, in plain types."""
        return {
            "assets": self.assets,
            "stale": self.stale,
            "in_sample": self.in_sample,
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "left_out": dict(sorted(self.left_out.items())),
        }

    def add(self, scored: Scored) -> None:
        """Count one more."""
        self.rows += len(scored.table)
        self.stale += int(np.count_nonzero(scored.table["stale"].to_numpy()))
        self.in_sample += int(np.count_nonzero(scored.table["in_sample"].to_numpy()))
        self.assets += scored.assets
        self.skipped += scored.skipped
        self.left_out += scored.left_out


def score_day(
    release: Release,
    lake: Lake,
    *,
    as_of: date | None,
    tickers: Collection[str] | None = None,
    which: Which = "served",
    keep_stale: bool = True,
) -> Iterator[Scored]:
    """Scores of some assets (None: all) at one day, in one batched pass.

    Args:
        release: an opened release.
        lake: as it is now.
        as_of: last session seen; None: the lake's newest.
        tickers: which assets.
        which: the models meant for serving, or those that metrics and predictions are of.
        keep_stale: whether stale scores are rows, or skipped.

    Raises:
        UnknownTickerError: the release has no such ticker.
    """
    torch.set_num_threads(1)
    scorer = Scorer(release, lake, which=which, tickers=tickers)
    table, skipped = scorer.score_all(None, as_of)
    if not keep_stale:
        stale = table["stale"].combine_chunks()
        skipped += [
            Skipped(ticker=row["ticker"], reason=f"stale: {row['age_sessions']} sessions passed since {row['session']}")
            for row in table.filter(stale).select(["ticker", "age_sessions", "session"]).to_pylist()
        ]
        table = table.filter(pc.invert(stale))
    yield Scored(table=table, skipped=skipped, assets=len(scorer.tickers))


def score_span(
    release: Release,
    lake: Lake,
    span: Span,
    *,
    tickers: Collection[str] | None = None,
    which: Which = "served",
    threads: int | None = None,
) -> Iterator[Scored]:
    """Scores of some assets (None: all) at every session of a range, asset by asset in alphabetical order.

    Args:
        release: an opened release.
        lake: read a few assets at a time.
        span: first and last session.
        tickers: which assets.
        which: the models meant for serving, or those that metrics and predictions are of.
        threads: assets scored at the same time, each on one core; None: one per core. The scores do not depend on it.

    Raises:
        UnknownTickerError: the release has no such ticker.
    """
    torch.set_num_threads(1)  # a thread per asset beats two threads on one asset's small matrices
    models = ReleasedModels(release, which, tickers)
    calendar = lake.calendar()
    threads = threads or len(os.sched_getaffinity(0))

    def score(ticker: str, columns: Columns | None) -> Scored:
        return _score_asset(models, ticker, columns, calendar, span)

    with ThreadPoolExecutor(threads, thread_name_prefix="score") as pool:
        under_way: deque[Future[Scored]] = deque()
        for ticker, columns in _with_absent(models.of, read_columns(lake, models.of)):
            under_way.append(pool.submit(score, ticker, columns))
            if len(under_way) > 2 * threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def write_scores(
    path: Path,
    scored: Iterable[Scored],
    *,
    on_progress: Callable[[Totals], None] | None = None,
    if_empty: Callable[[Totals], Exception] | None = None,
) -> Totals:
    """Write scores into one Parquet file as they come; it appears complete or not at all.

    Args:
        path: replaced if it exists.
        scored: in the order to be written.
        on_progress: called after each.
        if_empty: makes what is raised where there is not one row, and `path` stays as it was; None: an empty file.

    Raises:
        StorageError: disk full or not writable; nothing is left.
        Exception: what `if_empty` makes.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    totals, waiting = Totals(), []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            with pq.ParquetWriter(file, SCORES, compression="zstd") as writer:
                for part in scored:
                    totals.add(part)
                    waiting.append(part.table)
                    if sum(len(table) for table in waiting) >= ROWS_PER_GROUP:
                        writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS_PER_GROUP)
                        waiting = []
                    if on_progress is not None:
                        on_progress(totals)
                if waiting:
                    writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS_PER_GROUP)
                writer.add_key_value_metadata({FACTS: json.dumps({"rows": totals.rows, **totals.describe()})})
            file.flush()
            os.fsync(file.fileno())
        if if_empty is not None and not totals.rows:
            raise if_empty(totals)
        aside.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}", hint="check free space and permissions"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return totals


def remove_leftovers(path: Path) -> None:
    """Remove what `write_scores` of the same file left behind in processes of this machine that were killed."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.tmp")
    with contextlib.suppress(OSError):  # no folder yet, or not ours: writing will say so
        for entry in list(path.parent.iterdir()):
            found = pattern.fullmatch(entry.name)
            if found is not None and not Path("/proc", found[1]).exists():
                entry.unlink(missing_ok=True)


def _score_asset(
    models: ReleasedModels, ticker: str, columns: Columns | None, calendar: npt.NDArray[np.datetime64], span: Span
) -> Scored:
    if columns is None:
        return Scored(
            table=SCORES.empty_table(), skipped=[Skipped(ticker=ticker, reason=f"the lake has no bars of {ticker}")]
        )
    try:
        models.require_basis(ticker, calendar)
    except DataError as error:
        return Scored(table=SCORES.empty_table(), skipped=[Skipped(ticker=ticker, reason=error.message)])
    rows = rows_of_lake(ticker, columns, calendar, models.of[ticker], models.data(ticker))
    table, left_out = score_history(models, rows, span), count_left_out(rows, span)
    skipped = []
    if not len(table):
        found = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none traded"
        reason = f"no session from {span[0]} to {span[1]} has a window ({found})"
        skipped = [Skipped(ticker=ticker, reason=reason)]
    return Scored(table=table, skipped=skipped, left_out=left_out)


def _with_absent(
    models: Collection[str], present: Iterable[tuple[str, Columns]]
) -> Iterator[tuple[str, Columns | None]]:
    """What is present, and None for every ticker that is not, in alphabetical order."""
    absent = deque(sorted(models))
    for ticker, columns in present:
        while absent[0] != ticker:
            yield absent.popleft(), None
        yield absent.popleft(), columns
    for ticker in absent:
        yield ticker, None
