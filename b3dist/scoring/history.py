"""Many windows of one asset: every session of a range, as it would have been scored that day."""

from collections import Counter
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from b3dist.scoring.models import ReleasedModels
from b3dist.scoring.rows import AssetRows
from b3dist.scoring.table import SCORES, tabulate_scores

Span = tuple[date, date]
"""First and last session, both included."""


def score_history(models: ReleasedModels, rows: AssetRows, span: Span) -> pa.Table:
    """Scores of an asset at every session of a range that has a window, ascending; columns of SCORES.

    Windows are views of the asset's rows; the forward pass copies a few at a time.
    """
    ends = np.flatnonzero(_asked(rows, span) & rows.usable)
    if not len(ends):
        return SCORES.empty_table()
    windows = torch.from_numpy(rows.features).unfold(0, rows.lookback, 1).transpose(1, 2)  # (starts, lookback, F)
    return tabulate_scores(
        models.predict_many(rows.ticker, windows, torch.from_numpy(ends - rows.lookback + 1)),
        tickers=[rows.ticker] * len(ends),
        sessions=rows.sessions[ends],
        price=rows.close[ends],
        release_id=models.release_id,
        model_sha256=[models.of[rows.ticker].model_sha256] * len(ends),
        source=[models.source[rows.ticker]] * len(ends),
        age_sessions=np.zeros(len(ends), dtype=np.int32),
        stale_after=0,
        in_sample=models.in_sample([rows.ticker] * len(ends), rows.sessions[ends]),
    )


def count_left_out(rows: AssetRows, span: Span) -> Counter[str]:
    """Traded sessions of a range that have no window, by reason: warm_up, window_gap, impossible_bar."""
    left_out = np.flatnonzero(_asked(rows, span) & ~rows.usable)
    impossible = left_out >= rows.defect_from
    early = ~impossible & (left_out < rows.warm_up + rows.lookback - 1)
    counts = {
        "warm_up": int(early.sum()),
        "window_gap": int((~impossible & ~early).sum()),
        "impossible_bar": int(impossible.sum()),
    }
    return Counter({reason: count for reason, count in counts.items() if count})


def _asked(rows: AssetRows, span: Span) -> npt.NDArray[np.bool_]:
    first, last = (np.datetime64(day, "D") for day in span)
    asked: npt.NDArray[np.bool_] = (rows.sessions >= first) & (rows.sessions <= last)
    return asked
