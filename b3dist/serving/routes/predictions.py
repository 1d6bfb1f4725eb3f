"""/v1/predict, /v1/predict/bulk and /v1/score."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Annotated

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response

from b3dist.errors import DataError
from b3dist.scoring import Skipped
from b3dist.serving.answers import arrow_response, rows_of, wants_arrow
from b3dist.serving.arrow_bars import bars_of_arrow
from b3dist.serving.bodies import (
    bars_of_json,
    content_type,
    parse_json,
    read_body,
    read_json,
)
from b3dist.serving.catalogue import Catalogue, Catalogues
from b3dist.serving.problems import ARROW, Refusal, json_response
from b3dist.serving.replies import Question, Reply
from b3dist.serving.routes.responses import also_arrow, catalogue_of, errors, json_body
from b3dist.serving.schemas import (
    BulkAnswer,
    BulkRequest,
    PredictAnswer,
    PredictRequest,
    ScoreAnswer,
    ScoreQuery,
    ScoreRequest,
)

Ask = Callable[[Question], Awaitable[Reply]]
"""Answers a question, together with others that are asked at the same time."""

_ALL = "*"
_NUMBERS = ("p_buy", "p_sell", "p_hold", "return_pred", "price_pred")
_ARROW_IN = (
    "An Arrow stream with the columns ticker, session (date), open, high, low, close, best_bid, best_ask, quantity"
)
_ARROW_OUT = "The rows as an Arrow stream; release_id and what else the JSON answer holds are in the schema's metadata"


def prediction_routes(catalogues: Catalogues, ask: Ask) -> APIRouter:
    """Routes that score."""
    router = APIRouter(tags=["predictions"])

    @router.post(
        "/v1/predict",
        response_model=PredictAnswer,
        responses=errors(404, 413, 415, 422),
        openapi_extra=json_body(PredictRequest),
        summary="One asset",
    )
    async def predict(request: Request) -> Response:
        """The action and the return that one asset's model predicts from the sessions up to as_of."""
        body = await read_json(request, PredictRequest)
        reply = await ask(Question(body.ticker, body.as_of))
        request.state.release_id = reply.release_id
        if reply.error is not None:
            raise reply.error
        return json_response(reply.answer)

    @router.post(
        "/v1/predict/bulk",
        response_model=BulkAnswer,
        responses={200: also_arrow(_ARROW_OUT), **errors(413, 415, 422)},
        openapi_extra=json_body(BulkRequest),
        summary="Many assets",
    )
    async def bulk(request: Request) -> Response:
        """Many assets, or all, in one answer; what cannot be scored is listed in `skipped` with the reason."""
        body = await read_json(request, BulkRequest)
        catalogue = catalogue_of(request, catalogues)
        # In a thread: others are answered meanwhile, as PyTorch and Arrow let go of the interpreter.
        return await asyncio.to_thread(_score_many, catalogue, body, as_arrow=wants_arrow(request))

    @router.post(
        "/v1/score",
        response_model=ScoreAnswer,
        responses={200: also_arrow(_ARROW_OUT), **errors(404, 413, 415, 422)},
        openapi_extra=json_body(ScoreRequest, or_arrow=_ARROW_IN),
        summary="Your own bars",
    )
    async def score(
        request: Request,
        query: Annotated[ScoreQuery, Query()],
    ) -> Response:
        """The caller's own bars through the same feature code, scored at each asset's last bar."""
        is_arrow = content_type(request) == ARROW
        if is_arrow != (query.adjusted is not None) or (query.whole_history is not None and not is_arrow):
            expected = "in the query (?adjusted=true or false) of an Arrow" if is_arrow else "in a JSON"
            raise Refusal(422, f"adjusted and whole_history belong {expected} body", facts={"field": "adjusted"})
        body = await read_body(request)
        catalogue = catalogue_of(request, catalogues)
        return await asyncio.to_thread(_score_bars, catalogue, body, query, as_arrow=wants_arrow(request))

    return router


def _score_many(catalogue: Catalogue, body: BulkRequest, *, as_arrow: bool) -> Response:
    """BulkAnswer, or the same as an Arrow stream."""
    as_of = catalogue.resolve(body.as_of)
    wanted = list(dict.fromkeys(body.tickers))
    if _ALL in wanted and len(wanted) > 1:
        raise Refusal(422, '"*" already means every asset', hint='send ["*"] alone', facts={"field": "tickers"})
    known = catalogue.serving.release.assets
    unknown = [] if wanted == [_ALL] else [ticker for ticker in wanted if ticker not in known]
    asked = None if wanted == [_ALL] else [ticker for ticker in wanted if ticker in known]
    table, not_scored = catalogue.serving.scorer.score_all(asked, body.as_of)
    not_scored += [Skipped(ticker=ticker, reason="the release has no model of it") for ticker in unknown]
    facts = {
        "release_id": catalogue.release_id,
        "as_of": as_of.isoformat(),
        "skipped": [dataclasses.asdict(one) for one in not_scored],
    }
    return arrow_response(table, facts) if as_arrow else json_response({**facts, "rows": rows_of(table)})


def _score_bars(catalogue: Catalogue, body: bytes, query: ScoreQuery, *, as_arrow: bool) -> Response:
    """ScoreAnswer, or the same as an Arrow stream."""
    if query.adjusted is None:
        request = parse_json(body, ScoreRequest)
        adjusted, whole_history, bars = request.adjusted, request.whole_history, bars_of_json(request)
    else:
        adjusted, whole_history, bars = query.adjusted, bool(query.whole_history), bars_of_arrow(body)
    for ticker in bars:
        catalogue.require(ticker)
    scorer = catalogue.serving.scorer
    windows = [
        scorer.window_of_bars(ticker, columns, adjusted=adjusted, whole_history=whole_history)
        for ticker, columns in bars.items()
    ]
    table = scorer.score(windows)
    _refuse_overflow(table)
    facts = {"release_id": catalogue.release_id, "sessions_needed": {one.ticker: one.needed for one in windows}}
    return arrow_response(table, facts) if as_arrow else json_response({**facts, "rows": rows_of(table)})


def _refuse_overflow(table: pa.Table) -> None:
    """Refuse bars whose numbers are so large or small that the model's arithmetic overflows.

    Raises:
        DataError: names the first such ticker.
    """
    finite = np.logical_and.reduce([np.isfinite(table[name].to_numpy()) for name in _NUMBERS])
    if not finite.all():
        ticker = table["ticker"][int(np.argmin(finite))].as_py()
        raise DataError(
            f"{ticker}'s bars give no finite prediction: their values are far outside any market's",
            hint="send prices in BRL per share and quantities in shares",
        )
