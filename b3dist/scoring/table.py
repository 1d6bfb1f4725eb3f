"""The columns of a score, wherever it goes: a reply, a Parquet file, a part of one."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from b3dist.data.schema import ACTIONS
from b3dist.scoring.models import Predictions

SCORES: Final = pa.schema(
    [
        ("ticker", pa.string()),
        ("session", pa.date32()),  # the last session seen
        ("action", pa.string()),  # buy, sell or hold: the most probable
        ("p_buy", pa.float64()),
        ("p_sell", pa.float64()),
        ("p_hold", pa.float64()),
        ("return_pred", pa.float64()),  # a fraction, over the model's horizon
        ("price", pa.float64()),  # close of that session, BRL as traded
        ("price_pred", pa.float64()),  # price x (1 + return_pred)
        ("release_id", pa.string()),
        ("model_sha256", pa.string()),
        ("source", pa.string()),  # own, pooled or naive: how far down the ladder the model was found
        ("age_sessions", pa.int32()),  # exchange sessions between `session` and the one asked for
        ("stale", pa.bool_()),  # older than the scorer's limit
        ("in_sample", pa.bool_()),  # the model was trained on this very session: no evidence of skill
    ]
)
"""One row per scored window."""


def tabulate_scores(
    predictions: Predictions,
    *,
    tickers: Sequence[str],
    sessions: npt.NDArray[np.datetime64],
    price: npt.NDArray[np.float64],
    release_id: str,
    model_sha256: Sequence[str],
    source: Sequence[str],
    age_sessions: npt.NDArray[np.int32],
    stale_after: int,
    in_sample: npt.NDArray[np.bool_],
) -> pa.Table:
    """Scores of N windows.

    Args:
        predictions: what the models say.
        tickers: N of them.
        sessions: (N,) datetime64[D], last sessions seen.
        price: (N,) BRL.
        release_id: the release that answers.
        model_sha256: N of them.
        source: N of them.
        age_sessions: (N,).
        stale_after: exchange sessions beyond which a score is stale.
        in_sample: (N,) of `ReleasedModels.in_sample`.
    """
    probabilities = predictions.probabilities
    actions = pa.array(ACTIONS, pa.string()).take(pa.array(probabilities.argmax(axis=1)))
    columns: list[Any] = [
        pa.array(tickers, pa.string()),
        pa.array(sessions, pa.date32()),
        actions,
        *(pa.array(np.ascontiguousarray(probabilities[:, action])) for action in range(len(ACTIONS))),
        pa.array(predictions.returns),
        pa.array(price),
        pa.array(price * (1.0 + predictions.returns)),
        pa.repeat(pa.scalar(release_id, pa.string()), len(tickers)),
        pa.array(model_sha256, pa.string()),
        pa.array(source, pa.string()),
        pa.array(age_sessions),
        pa.array(age_sessions > stale_after),
        pa.array(in_sample),
    ]
    return pa.Table.from_arrays(columns, schema=SCORES)
