"""From questions to replies: what one batch does, with or without a server around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from b3dist.data.schema import ACTIONS
from b3dist.errors import B3distError
from b3dist.scoring import Window
from b3dist.serving.answers import rows_of
from b3dist.serving.catalogue import Catalogue, Catalogues
from b3dist.serving.problems import Refusal


@dataclass(frozen=True, slots=True)
class Question:
    """What one caller of /v1/predict asks."""

    ticker: str
    as_of: date | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What one caller gets: an answer or an error, in either case of one release."""

    release_id: str | None
    answer: dict[str, Any] | None = None
    error: B3distError | None = None


def answer_batch(catalogues: Catalogues, questions: Sequence[Question]) -> list[Reply]:
    """One reply per question, any mixture of tickers, all from one release and in one batched pass.

    A question that cannot be answered gets its own error and disturbs no other.
    """
    try:
        catalogue = catalogues.current()
    except Refusal as refusal:
        return [Reply(None, error=refusal)] * len(questions)
    located = [_locate(catalogue, question) for question in questions]
    windows = [window for window in located if isinstance(window, Window)]
    rows = iter(rows_of(catalogue.serving.scorer.score(windows)) if windows else ())
    return [
        Reply(catalogue.release_id, answer=_prediction(next(rows), catalogue.resolve(question.as_of)))
        if isinstance(window, Window)
        else Reply(catalogue.release_id, error=window)
        for question, window in zip(questions, located, strict=True)
    ]


def _locate(catalogue: Catalogue, question: Question) -> Window | B3distError:
    try:
        catalogue.require(question.ticker)
        catalogue.resolve(question.as_of)  # refuses a day before the lake begins, as the bulk route does
        return catalogue.serving.scorer.locate(question.ticker, question.as_of)
    except B3distError as error:
        return error


def _prediction(row: dict[str, Any], as_of: date) -> dict[str, Any]:
    """A row as PredictAnswer."""
    kept = ("return_pred", "price", "price_pred", "release_id", "model_sha256", "source")
    freshness = ("age_sessions", "stale", "in_sample")
    return {
        "ticker": row["ticker"],
        "as_of": as_of.isoformat(),
        "session": row["session"],
        "action": row["action"],
        "probabilities": {name: row[f"p_{name}"] for name in ACTIONS},
        **{name: row[name] for name in (*kept, *freshness)},
    }
