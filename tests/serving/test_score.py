"""/v1/score: the caller's own bars, in JSON and in Arrow."""

import copy
import json
import math
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from b3dist.serving import schemas
from b3dist.serving.holder import Holder
from b3dist.serving.problems import ARROW
from tests.serving.bars import Columns, columns_of, stream_of, table_of

TICKERS = ("SIMA3", "SIMD5")


@pytest.fixture(scope="module")
def bars(holder: Holder) -> dict[str, Columns]:
    """300 bars of two assets."""
    return {ticker: columns_of(holder, ticker) for ticker in TICKERS}


def score(client: TestClient, bars: dict[str, Any], **settings: Any) -> Any:
    """The answer to a JSON body."""
    return client.post("/v1/score", json={"adjusted": False, **settings, "bars": bars})


def test_the_lakes_own_bars_score_as_predict_does(client: TestClient, bars: dict[str, Columns]) -> None:
    """300 of 400 bars as traded: the warm-up is long enough for the same prediction."""
    response = score(client, bars)
    answer = schemas.ScoreAnswer.model_validate_json(response.content)
    assert answer.sessions_needed == dict.fromkeys(TICKERS, 282)
    for row in response.json()["rows"]:
        predicted = client.post("/v1/predict", json={"ticker": row["ticker"]}).json()
        for name in ("buy", "sell", "hold"):
            assert row[f"p_{name}"] == pytest.approx(predicted["probabilities"][name], abs=1e-6)
        assert row["return_pred"] == pytest.approx(predicted["return_pred"], abs=1e-6)
        for name in ("session", "action", "price", "model_sha256", "release_id"):
            assert row[name] == predicted[name]


@pytest.mark.parametrize("rows", [None, 7])
def test_arrow_bars_score_as_json_bars_do(client: TestClient, bars: dict[str, Columns], rows: int | None) -> None:
    """In one batch or many, with the tickers' rows mixed, as dictionary or large strings; also answered in Arrow."""
    expected = score(client, bars).json()
    table = table_of(bars).sort_by("session")
    dictionary = table.set_column(0, "ticker", table["ticker"].dictionary_encode())
    large = table.set_column(0, "ticker", table["ticker"].cast(pa.large_string()))
    for sent in (table, dictionary, large):
        headers = {"Content-Type": ARROW, "Accept": ARROW}
        response = client.post("/v1/score?adjusted=false", content=stream_of(sent, rows=rows), headers=headers)
        assert response.status_code == 200, response.text
        answered = pa.ipc.open_stream(response.content).read_all()
        assert [{**row, "session": str(row["session"])} for row in answered.to_pylist()] == expected["rows"]


def test_too_few_bars_are_422_with_needed_and_found(client: TestClient, holder: Holder) -> None:
    """Unless they are the asset's whole history, which needs no warm-up of the indicators."""
    short = {"SIMA3": columns_of(holder, "SIMA3", last=281)}
    response = score(client, short)
    assert response.status_code == 422
    assert (response.json()["needed"], response.json()["found"]) == (282, 281)
    assert score(client, short, whole_history=True).status_code == 200


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "best_bid", "best_ask", "quantity"])
@pytest.mark.parametrize("value", [-1.0, 1e300])
def test_a_bad_value_is_422_and_named(client: TestClient, bars: dict[str, Columns], field: str, value: float) -> None:
    """Field, row and session stand in the message."""
    broken = copy.deepcopy(bars)
    broken["SIMD5"][field][17] = value
    response = score(client, broken)
    assert response.status_code == 422
    for part in ("SIMD5", field, "17", broken["SIMD5"]["session"][17]):
        assert part in response.json()["error"]
    where = (f"bars.SIMD5.{field}.17", 17)
    assert (response.json()["field"], response.json()["row"]) == where
    arrow = client.post(
        "/v1/score?adjusted=false", content=stream_of(table_of(broken)), headers={"Content-Type": ARROW}
    )
    assert (arrow.status_code, arrow.json()["field"], arrow.json()["row"]) == (422, *where)


def test_a_bad_session_and_nan_are_named_in_the_same_form(client: TestClient, bars: dict[str, Columns]) -> None:
    """NaN where it can be sent: in JSON's extension and in Arrow."""
    broken = copy.deepcopy(bars)
    broken["SIMD5"]["session"][17] = broken["SIMD5"]["session"][16]
    answer = score(client, broken).json()
    assert (answer["field"], answer["row"]) == ("bars.SIMD5.session.17", 17)
    broken = copy.deepcopy(bars)
    broken["SIMD5"]["close"][17] = math.nan
    body = json.dumps({"adjusted": False, "bars": broken})
    in_json = client.post("/v1/score", content=body, headers={"Content-Type": "application/json"})
    in_arrow = client.post(
        "/v1/score?adjusted=false", content=stream_of(table_of(broken)), headers={"Content-Type": ARROW}
    )
    for response in (in_json, in_arrow):
        answer = response.json()
        assert (response.status_code, answer["field"], answer["row"]) == (422, "bars.SIMD5.close.17", 17)


@pytest.mark.parametrize("field", ["open", "high", "low", "close"])
def test_a_price_of_zero_is_422_but_an_absent_quote_is_not(
    client: TestClient, bars: dict[str, Columns], field: str
) -> None:
    """A bid and an ask of 0 mean that nobody quoted."""
    broken, unquoted = copy.deepcopy(bars), copy.deepcopy(bars)
    broken["SIMA3"][field][200] = 0
    assert f"{field} in row 200" in score(client, broken).json()["error"]
    unquoted["SIMA3"]["best_bid"][200] = unquoted["SIMA3"]["best_ask"][200] = 0.0
    assert score(client, unquoted).status_code == 200


def test_bars_that_break_the_schema_are_422(client: TestClient, bars: dict[str, Columns]) -> None:
    """Lists of different lengths, sessions out of order, nulls, text, missing and unknown columns."""

    def change(**columns: Any) -> dict[str, Any]:
        return {"SIMA3": {**bars["SIMA3"], **columns}}

    sessions, close = bars["SIMA3"]["session"], bars["SIMA3"]["close"]
    cases: list[tuple[dict[str, Any], str]] = [
        (change(close=close[:-1]), "close"),
        (change(session=[sessions[1], sessions[0], *sessions[2:]]), "session"),
        (change(session=[*sessions[:-1], "2018-02-30"]), "session"),
        (change(session=[*sessions[:-1], "1545955200"]), "session"),
        (change(close=[None, *close[1:]]), "close"),
        (change(close=["1", *close[1:]]), "close"),
        (change(close=[True, *close[1:]]), "close"),
        (change(volume=close), "volume"),
        ({"SIMA3": {name: values for name, values in bars["SIMA3"].items() if name != "quantity"}}, "quantity"),
        ({}, "bars"),
        (change(session=[], close=[]), "session"),
    ]
    for sent, named in cases:
        response = score(client, sent)
        assert response.status_code == 422
        assert named in response.json()["error"]
    assert score(client, {"NONE3": bars["SIMA3"]}).status_code == 404


def test_numbers_that_are_no_numbers_are_422(client: TestClient) -> None:
    """NaN, infinity and what overflows to it are not JSON's."""
    for number in ("NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400):
        columns = ",".join(f'"{name}":[{number}]' for name in ("open", "high", "low", "close", "best_bid", "best_ask"))
        body = f'{{"adjusted":true,"bars":{{"SIMA3":{{"session":["2018-01-02"],{columns},"quantity":[1]}}}}}}'
        response = client.post("/v1/score", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, number
        assert "bars.SIMA3.open.0" in response.json()["error"] or "JSON" in response.json()["error"]


def test_adjusted_is_said_once_and_where_it_belongs(client: TestClient, bars: dict[str, Columns]) -> None:
    """In the query of an Arrow stream, in the body of JSON."""
    stream = stream_of(table_of(bars))
    assert client.post("/v1/score", content=stream, headers={"Content-Type": ARROW}).status_code == 422
    body = {"adjusted": True, "bars": bars}
    assert client.post("/v1/score?adjusted=true", json=body).status_code == 422
    assert client.post("/v1/score?whole_history=true", json=body).status_code == 422
