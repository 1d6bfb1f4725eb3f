"""Many windows of one asset: every session of a range, as it would have been scored that day."""

from datetime import date

import numpy as np
import pyarrow as pa
import torch

from b3dist.release import ReleasedModel
from b3dist.scoring.forward import WINDOWS_AT_ONCE, Outputs, StackedModels
from b3dist.scoring.rows import AssetRows
from b3dist.scoring.table import SCORES, tabulate_scores


def score_history(
    rows: AssetRows, model: ReleasedModel, stack: StackedModels, *, first: date, last: date, release_id: str
) -> pa.Table:
    """Scores of an asset at every session from first to last that has a window, ascending; columns of SCORES.

    A window is a view of the asset's rows until it is run; at most WINDOWS_AT_ONCE are copied at a time.
    """
    asked = (rows.sessions >= np.datetime64(first, "D")) & (rows.sessions <= np.datetime64(last, "D"))
    ends = np.flatnonzero(asked & rows.usable)
    if not len(ends):
        return SCORES.empty_table()
    windows = torch.from_numpy(rows.features).unfold(0, rows.lookback, 1).transpose(1, 2)  # (starts, lookback, F)
    starts = torch.from_numpy(ends - rows.lookback + 1)
    outputs = torch.cat([stack.of_one(model.slot, windows[part]) for part in torch.split(starts, WINDOWS_AT_ONCE)])
    return tabulate_scores(
        Outputs(logits=outputs[:, :-1], returns=outputs[:, -1]),
        mean=model.return_target.mean,
        scale=model.return_target.scale,
        tickers=[rows.ticker] * len(ends),
        sessions=rows.sessions[ends],
        price=rows.close[ends],
        release_id=release_id,
        model_sha256=[model.model_sha256] * len(ends),
        age_sessions=np.zeros(len(ends), dtype=np.int32),
        stale_after=0,
    )
