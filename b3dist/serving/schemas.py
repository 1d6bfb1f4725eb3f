"""What the routes take and give, as pydantic models: the source of /docs.

Requests are validated by them, strictly. Answers are written straight from the scored table, and tests hold them to
these models: validating what this code has made itself would cost as much as scoring it.
"""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, GetPydanticSchema, WithJsonSchema
from pydantic_core import core_schema

from b3dist.serving.limits import MAX_BARS, MAX_PAGE_SIZE, MAX_TICKER_LENGTH, MAX_TICKERS

Ticker = Annotated[str, Field(min_length=1, max_length=MAX_TICKER_LENGTH, description="As in /v1/assets.")]
Day = Annotated[
    date,
    # pydantic's own date takes a text of digits for Unix time.
    GetPydanticSchema(
        lambda _source, _handler: core_schema.chain_schema(
            [core_schema.str_schema(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), core_schema.date_schema(strict=False)]
        )
    ),
    WithJsonSchema({"type": "string", "format": "date"}),
]
"""A date as YYYY-MM-DD and nothing else."""
AsOf = Annotated[
    Day | None,
    Field(
        description="Last session seen, YYYY-MM-DD. A date that is no session means the last session before it;"
        " null: the newest session there is.",
    ),
]
Numbers = Annotated[list[float], FailFast(), Field(max_length=MAX_BARS)]


class Request(BaseModel):
    """Base of all requests: JSON's own types and known fields only, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class PredictRequest(Request):
    """One asset at one session."""

    ticker: Ticker
    as_of: AsOf = None


class BulkRequest(Request):
    """Many assets at one session."""

    tickers: Annotated[
        list[Ticker],
        FailFast(),
        Field(min_length=1, max_length=MAX_TICKERS, description='Tickers, or ["*"] for every asset of the release.'),
    ]
    as_of: AsOf = None


class Bars(Request):
    """One asset's bars, oldest first: lists of one length, one entry per traded session."""

    session: Annotated[list[Day], FailFast(), Field(min_length=1, max_length=MAX_BARS, description="Ascending.")]
    open: Annotated[Numbers, Field(description="BRL per share, above 0; so are high, low and close.")]
    high: Numbers
    low: Numbers
    close: Numbers
    best_bid: Annotated[Numbers, Field(description="BRL per share at the close; 0 where no quote stood.")]
    best_ask: Annotated[Numbers, Field(description="Likewise.")]
    quantity: Annotated[Numbers, Field(description="Shares traded, 0 or more.")]


class ScoreRequest(Request):
    """The caller's own bars; scored at the last bar of each asset."""

    adjusted: Annotated[
        bool,
        Field(
            description="true: prices and quantities are already comparable with the last bar's (splits taken out)."
            " false: they are as traded, and the lake's share events are applied.",
        ),
    ]
    whole_history: Annotated[
        bool, Field(description="The first bar is the asset's first ever, so that the indicators need no warm-up.")
    ] = False
    bars: Annotated[dict[Ticker, Bars], Field(min_length=1, max_length=MAX_TICKERS, description="By ticker.")]


class ScoreQuery(BaseModel):
    """What an Arrow stream of bars cannot say itself."""

    model_config = ConfigDict(extra="forbid")

    adjusted: Annotated[
        bool | None, Field(description="With an Arrow body, and then required: as in the JSON body.")
    ] = None
    whole_history: Annotated[bool | None, Field(description="With an Arrow body: as in the JSON body.")] = None


class AssetQuery(BaseModel):
    """Which part of the list of assets."""

    model_config = ConfigDict(extra="forbid")

    search: Annotated[str, Field(max_length=MAX_TICKER_LENGTH, description="Part of a ticker; case does not matter.")]
    search = ""
    page: Annotated[int, Field(ge=1, le=1_000_000, description="From 1.")] = 1
    page_size: Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE)] = 50


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")

    release_id: Annotated[str, Field(description="The one release this answer comes from; also X-Release-Id.")]


class Probabilities(BaseModel):
    """What the action head says; they add up to 1."""

    model_config = ConfigDict(extra="forbid")

    buy: float
    sell: float
    hold: float


Action = Annotated[
    Literal["buy", "sell", "hold"], Field(description="A class learned by itself: it may disagree with return_pred.")
]
Session = Annotated[date, Field(description="The asset's own last bar at or before as_of: the last one the model saw.")]
Price = Annotated[float, Field(description="Close of that session, BRL as traded.")]
ReturnPred = Annotated[float, Field(description="Predicted return over the model's horizon, a fraction.")]
PricePred = Annotated[float, Field(description="price x (1 + return_pred).")]
Sha = Annotated[str, Field(description="sha256 of the weights that answered.")]
SourceOf = Annotated[
    Literal["own", "pooled", "naive"],
    Field(description="own: a model of this asset; pooled: of all assets; naive: no change, the most frequent action."),
]
Age = Annotated[int, Field(ge=0, description="Exchange sessions from `session` to as_of: 0 if it traded then.")]
Stale = Annotated[
    bool, Field(description="The asset has not traded for too many of the lake's sessions to act on this.")
]
InSample = Annotated[
    bool,
    Field(description="`session` lies in what this model was trained on, so the row is no evidence of skill."),
]


class PredictAnswer(Answer):
    """One prediction."""

    ticker: str
    as_of: Annotated[date, Field(description="The exchange session that the question came to mean.")]
    session: Session
    action: Action
    probabilities: Probabilities
    return_pred: ReturnPred
    price: Price
    price_pred: PricePred
    model_sha256: Sha
    source: SourceOf
    age_sessions: Age
    stale: Stale
    in_sample: InSample


class Row(Answer):
    """One prediction as a row: the columns of `score` files, of the Arrow streams and of the bulk answers."""

    ticker: str
    session: Session
    action: Action
    p_buy: float
    p_sell: float
    p_hold: float
    return_pred: ReturnPred
    price: Price
    price_pred: PricePred
    model_sha256: Sha
    source: SourceOf
    age_sessions: Age
    stale: Stale
    in_sample: InSample


class Skipped(BaseModel):
    """An asset that was asked for and could not be scored."""

    ticker: str
    reason: str
    needed: Annotated[int | None, Field(description="Sessions needed, where too few was the reason.")] = None
    found: int | None = None


class BulkAnswer(Answer):
    """Every asset asked for is either a row or skipped."""

    as_of: Annotated[date, Field(description="The exchange session that the question came to mean.")]
    rows: list[Row]
    skipped: list[Skipped]


class ScoreAnswer(Answer):
    """One row per asset, at its last bar."""

    sessions_needed: Annotated[
        dict[str, int], Field(description="Per ticker: sessions its model needs, the indicators' warm-up included.")
    ]
    rows: list[Row]


class AssetLine(BaseModel):
    """One asset in the list."""

    ticker: str
    source: Annotated[str, Field(description="own: trained on this asset alone; pooled; naive.")]
    run_id: str
    carried_over: Annotated[bool, Field(description="The newest run gave no model of it; it kept its previous one.")]
    first_session: Annotated[date | None, Field(description="In the lake; null if the lake does not have it.")]
    last_session: date | None
    num_sessions: int


class AssetsAnswer(Answer):
    """A page of the release's assets, by ticker."""

    total: Annotated[int, Field(description="Assets that match, on all pages.")]
    page: int
    page_size: int
    assets: list[AssetLine]


class ModelFacts(BaseModel):
    """One set of weights."""

    model_sha256: str
    anchor: Annotated[date, Field(description="Session whose price basis the model was trained on.")]


class AssetAnswer(Answer):
    """Everything about one asset's model."""

    ticker: str
    source: str
    run_id: str
    carried_over: bool
    served: Annotated[ModelFacts, Field(description="The weights that answer requests.")]
    evaluated: Annotated[ModelFacts, Field(description="The weights that `metrics` are of; another set if refitted.")]
    label_set: str
    feature_set: str
    feature_names: list[str]
    lookback: Annotated[int, Field(description="Sessions in a window.")]
    horizon: Annotated[int, Field(description="Sessions from a window's last row to what is predicted.")]
    hidden_size: int
    sessions_needed: Annotated[
        int,
        Field(
            description="Sessions of your own bars that /v1/score needs, warm-up included. From the lake, or with"
            " whole_history, fewer are needed: the lookback and the 19 sessions before it."
        ),
    ]
    first_session: date | None
    last_session: date | None
    num_sessions: int
    metrics: Annotated[dict[str, Any], Field(description="metrics.json: validation and test parts with baselines.")]
    model_card: Annotated[str, Field(description="Where the release's model card is.")]


class ReleaseAnswer(Answer):
    """What is being served."""

    alias: Annotated[str | None, Field(description="The alias by which the release was asked for.")]
    since: Annotated[str, Field(description="When this replica took it over, UTC.")]
    created_at: str
    run_id: str
    refit: bool
    num_assets: int
    num_carried_over: int
    lake_manifest_hash: Annotated[str, Field(description="sha256 of the served lake's manifest.")]
    trained_on_lake_manifest_hash: str
    first_session: date
    last_session: Annotated[date, Field(description="The lake's newest session; `stale` is relative to it.")]
    model_card: Annotated[str, Field(description="Markdown: data, period, metrics with baselines, intended use.")]


class AliveAnswer(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class ReadyAnswer(Answer):
    """Weights are warm."""

    status: Literal["ready"]
    lake_manifest_hash: str
    last_session: Annotated[date, Field(description="The lake's newest session; `stale` is relative to it.")]
    not_taken_over: Annotated[
        str | None, Field(description="Why a newer release or lake could not be taken over; the old one serves on.")
    ]


class ErrorAnswer(BaseModel):
    """Every answer that is no 200."""

    error: Annotated[str, Field(description="What is wrong, where, what was expected and found.")]
    hint: Annotated[str, Field(description="What to do about it; may be empty.")]
    release_id: str | None = None
    needed: Annotated[int | None, Field(description="422, too few sessions: how many a prediction needs.")] = None
    found: Annotated[int | None, Field(description="422, too few sessions: how many there are.")] = None
    ticker: str | None = None
    field: Annotated[str | None, Field(description="422: path of the value at fault, e.g. bars.PETR4.close.17.")] = None
    row: Annotated[int | None, Field(description="422: the row at fault, from 0: the number in `field`.")] = None
    nearest: Annotated[list[str] | None, Field(description="404: known tickers with a similar name.")] = None
    limit_bytes: Annotated[int | None, Field(description="413: the largest body.")] = None


REQUESTS = (PredictRequest, BulkRequest, ScoreRequest)
"""Bodies, which the routes read themselves: /docs would not know of them otherwise."""
