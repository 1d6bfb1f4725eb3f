"""What is served, with what many requests ask of it worked out once per release and lake."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Self

import numpy as np

from b3dist.data.features import INPUT_COLUMNS, WARMUP_SESSIONS
from b3dist.errors import B3distError
from b3dist.serving.holder import Holder, Serving
from b3dist.serving.limits import MAX_TICKER_LENGTH
from b3dist.serving.problems import Refusal


@dataclass(frozen=True, kw_only=True)
class Span:
    """An asset's sessions in the lake."""

    first: date
    last: date
    num_sessions: int


@dataclass(frozen=True, kw_only=True)
class Example:
    """An asset to show in /docs."""

    ticker: str
    body: Mapping[str, Any]
    """Of /v1/score: its newest bars as traded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """One `Serving` and what follows from it. A request takes it once, so that its answer is of one release."""

    serving: Serving
    spans: Mapping[str, Span]
    """Of every ticker in the lake."""
    card: str | None
    """The release's model card; None if it could not be read."""
    example: Example | None
    """For /docs; None if it could not be read."""

    @classmethod
    def of(cls, serving: Serving) -> Self:
        """Read all that answers need later: the folders of the release and the lake may be gone by then."""
        table = serving.lake.tickers()
        columns = (table[name].dt.date for name in ("first_session", "last_session"))
        spans = {
            ticker: Span(first=first, last=last, num_sessions=int(count))
            for ticker, first, last, count in zip(table["ticker"], *columns, table["num_sessions"], strict=True)
        }
        return cls(serving=serving, spans=spans, card=_card_of(serving), example=_example_of(serving, spans))

    @property
    def release_id(self) -> str:
        """The release every answer names."""
        return self.serving.release.release_id

    @property
    def model_card(self) -> str:
        """Markdown.

        Raises:
            Refusal: 404, the release's folder had none when it was taken over.
        """
        if self.card is None:
            raise Refusal(404, f"the model card of release {self.release_id} cannot be read")
        return self.card

    def resolve(self, as_of: date | None) -> date:
        """The exchange session that a question means: the last at or before `as_of`, or the newest.

        Raises:
            Refusal: 422, the lake begins later.
        """
        calendar = self.serving.scorer.calendar
        stop = len(calendar)
        if as_of is not None:
            stop = int(np.searchsorted(calendar, np.datetime64(as_of), side="right"))
        if stop == 0:
            raise Refusal(
                422,
                f"as_of is {as_of}, and the lake's first session is {calendar[0]}",
                hint="ask for a later session",
                facts={"field": "as_of"},
            )
        session: date = calendar[stop - 1].item()
        return session

    def require(self, ticker: str) -> None:
        """Refuse a ticker that the release has no model of.

        Raises:
            Refusal: 404 with similar names, if there are any.
        """
        if ticker in self.serving.release.assets:
            return
        nearest = difflib.get_close_matches(ticker[:MAX_TICKER_LENGTH].upper(), self.serving.release.assets, n=3)
        raise Refusal(
            404,
            f"release {self.release_id} has no model of {ticker[:MAX_TICKER_LENGTH]!r}",
            hint=f"did you mean {', '.join(nearest)}?" if nearest else "GET /v1/assets lists every ticker there is",
            facts={"ticker": ticker[:MAX_TICKER_LENGTH], "nearest": nearest},
        )


class Catalogues:
    """The catalogue of whatever the holder serves now."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self._last: Catalogue | None = None

    def current(self) -> Catalogue:
        """Read the holder's reference, once.

        Raises:
            Refusal: 503, nothing is warm yet.
        """
        serving = self.holder.current
        if serving is None:
            why = self.holder.shown_error
            raise Refusal(
                503,
                f"no release is ready: {why}" if why else "the release is still being loaded",
                hint="GET /readyz answers 200 once one is",
            )
        last = self._last
        if last is None or last.serving is not serving:
            last = self._last = Catalogue.of(serving)
        return last


def _card_of(serving: Serving) -> str | None:
    try:
        return serving.release.card
    except (OSError, ValueError):
        return None


def _example_of(serving: Serving, spans: Mapping[str, Span]) -> Example | None:
    """The newest bars of an asset that trades now and has the longest history, as a caller of /v1/score sends them."""

    def rank(ticker: str) -> tuple[bool, int]:
        span = spans.get(ticker)
        return (False, 0) if span is None else (span.last == serving.newest_session, span.num_sessions)

    release = serving.release
    ticker = max(release.assets, key=rank)
    needed = WARMUP_SESSIONS + release.groups[release.assets[ticker].served.group].data.lookback
    try:
        bars = serving.lake.bars(ticker, ("session", *INPUT_COLUMNS)).tail(needed)
    except (B3distError, OSError):
        return None
    columns: dict[str, Any] = {name: bars[name].astype(float).tolist() for name in INPUT_COLUMNS}
    columns["session"] = bars["session"].dt.strftime("%Y-%m-%d").tolist()
    body = {"adjusted": False, "whole_history": len(bars) < needed, "bars": {ticker: columns}}
    return Example(ticker=ticker, body=body)
