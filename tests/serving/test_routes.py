"""What each route answers, over a real release, in process."""

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel
from starlette.testclient import TestClient

from b3dist.release import Release
from b3dist.serving import schemas
from b3dist.serving.api import create_api
from b3dist.serving.catalogue import Catalogues
from b3dist.serving.holder import Holder
from b3dist.serving.problems import ARROW
from b3dist.serving.replies import Question, Reply, answer_batch
from tests.release.releases import make_release
from tests.serving.clients import client_of, hold, make_api


def ask(client: TestClient, model: type[BaseModel], method: str, path: str, **arguments: Any) -> dict[str, Any]:
    """The answer with 200, after holding it to its documented schema and to the release in its header."""
    response = client.request(method, path, **arguments)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    model.model_validate_json(response.content)
    assert response.headers["x-release-id"] == answer.get("release_id", response.headers["x-release-id"])
    return answer


def test_health_says_alive_and_ready(client: TestClient, served_release: Release) -> None:
    """Ready names the release that is warm."""
    assert ask(client, schemas.AliveAnswer, "GET", "/healthz") == {"status": "alive"}
    ready = ask(client, schemas.ReadyAnswer, "GET", "/readyz")
    assert ready["release_id"] == served_release.release_id
    assert ready["not_taken_over"] is None


def test_before_a_release_is_warm_everything_but_healthz_is_503(tmp_path: Path) -> None:
    """With the reason, once loading has failed."""
    holder = Holder()
    client = client_of(make_api(holder))
    assert client.get("/healthz").status_code == 200
    for method, path in (("GET", "/readyz"), ("GET", "/v1/assets"), ("GET", "/v1/assets/X"), ("GET", "/v1/release")):
        response = client.request(method, path)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
    for path, body in (("predict", {"ticker": "X"}), ("predict/bulk", {"tickers": ["*"]})):
        assert client.post(f"/v1/{path}", json=body).status_code == 503
    assert not holder.take_over({"releases": str(tmp_path), "release": "none", "lake": str(tmp_path)})
    assert "there is no release 'none' in" in client.get("/readyz").json()["error"]
    assert str(tmp_path) in str(holder.last_error)
    assert str(tmp_path) not in client.get("/readyz").text, "a path of the server"


def test_assets_are_searched_and_paged(client: TestClient) -> None:
    """Pages together hold every asset once; search ignores case."""
    everything = ask(client, schemas.AssetsAnswer, "GET", "/v1/assets")
    tickers = [line["ticker"] for line in everything["assets"]]
    assert tickers == sorted(tickers)
    assert everything["total"] == len(tickers) == 6
    paged = [
        line["ticker"]
        for page in (1, 2, 3, 4)
        for line in ask(client, schemas.AssetsAnswer, "GET", f"/v1/assets?page={page}&page_size=2")["assets"]
    ]
    assert paged == tickers
    found = ask(client, schemas.AssetsAnswer, "GET", f"/v1/assets?search={tickers[0].lower()}")
    assert [line["ticker"] for line in found["assets"]] == tickers[:1]


@pytest.mark.parametrize(
    "query", ["page_size=101", "page_size=0", "page=0", "page=x", "pagesize=2", "search=" + "A" * 33]
)
def test_a_bad_page_is_422_and_names_the_parameter(client: TestClient, query: str) -> None:
    """Unknown parameters too."""
    response = client.get(f"/v1/assets?{query}")
    assert response.status_code == 422
    assert response.json()["field"] == query.partition("=")[0]


def test_an_asset_tells_its_model_and_metrics_with_baselines(client: TestClient, served_release: Release) -> None:
    """The metrics are those of the release, baselines included."""
    ticker = next(iter(served_release.assets))
    facts = ask(client, schemas.AssetAnswer, "GET", f"/v1/assets/{ticker}")
    assert facts["served"]["model_sha256"] == served_release.assets[ticker].served.model_sha256
    assert facts["metrics"] == served_release.assets[ticker].metrics
    assert {"majority", "persistence"} <= facts["metrics"]["test"]["baselines"].keys()
    assert facts["sessions_needed"] == 282


def test_release_shows_the_model_card(client: TestClient, served_release: Release) -> None:
    """The release's own, with its statement on advice."""
    assert "advice" in served_release.card
    answer = ask(client, schemas.ReleaseAnswer, "GET", "/v1/release")
    assert answer["model_card"] == served_release.card
    assert answer["num_assets"] == len(served_release.assets)


def test_predict_is_what_the_scorer_says(client: TestClient, holder: Holder, served_release: Release) -> None:
    """Every number of the answer, and the action with the highest probability."""
    assert holder.current is not None
    scorer = holder.current.scorer
    for ticker in served_release.assets:
        answer = ask(client, schemas.PredictAnswer, "POST", "/v1/predict", json={"ticker": ticker})
        expected = scorer.score([scorer.locate(ticker)]).to_pylist()[0]
        probabilities = answer["probabilities"]
        assert probabilities == {name: expected[f"p_{name}"] for name in ("buy", "sell", "hold")}
        assert answer["action"] == max(probabilities, key=probabilities.__getitem__)
        assert answer["price_pred"] == pytest.approx(answer["price"] * (1 + answer["return_pred"]))
        assert answer["session"] == expected["session"].isoformat()
        assert answer["model_sha256"] == served_release.assets[ticker].served.model_sha256


def test_as_of_sees_the_last_session_before_it(client: TestClient, holder: Holder) -> None:
    """A Sunday means the Friday before; a day in the future the newest session."""
    assert holder.current is not None
    calendar = [day.astype(object) for day in holder.current.scorer.calendar]
    sunday = next(
        day for day in (date.fromordinal(n) for n in range(calendar[-30].toordinal(), 10**6)) if day.weekday() == 6
    )
    friday = max(day for day in calendar if day < sunday)
    for asked, meant in ((sunday, friday), (date(2999, 1, 1), calendar[-1]), (None, calendar[-1])):
        body = {"ticker": "SIMA3", "as_of": asked.isoformat() if asked else None}
        answer = ask(client, schemas.PredictAnswer, "POST", "/v1/predict", json=body)
        assert answer["as_of"] == answer["session"] == meant.isoformat()
        assert answer["age_sessions"] == 0
        assert not answer["stale"]
        assert not answer["in_sample"]
    anchor = holder.current.release.assets["SIMA3"].served.anchor.isoformat()
    answer = ask(client, schemas.PredictAnswer, "POST", "/v1/predict", json={"ticker": "SIMA3", "as_of": anchor})
    assert answer["in_sample"]


def test_a_day_before_the_lake_is_422_on_both_routes(client: TestClient, holder: Holder) -> None:
    """In the same words, which name the lake's first session."""
    assert holder.current is not None
    first = str(holder.current.scorer.calendar[0])
    one = client.post("/v1/predict", json={"ticker": "SIMA3", "as_of": "1995-01-01"})
    many = client.post("/v1/predict/bulk", json={"tickers": ["SIMA3"], "as_of": "1995-01-01"})
    assert one.status_code == many.status_code == 422
    assert one.json() == many.json()
    assert first in one.json()["error"]
    assert one.json()["field"] == "as_of"


def test_head_answers_as_get_does_without_a_body(client: TestClient) -> None:
    """Ready or not."""
    waiting = client_of(make_api(Holder()))
    for asked, path in ((client, "/healthz"), (client, "/readyz"), (waiting, "/healthz"), (waiting, "/readyz")):
        got, head = asked.get(path), asked.head(path)
        assert (head.status_code, head.headers, head.content) == (got.status_code, got.headers, b"")


def test_what_was_taken_over_is_described_when_its_folders_are_gone(small_lake: Path, tmp_path: Path) -> None:
    """Card, examples and assets are resident; no answer shows a path of the server."""
    lake = tmp_path / "lake"
    shutil.copytree(small_lake, lake)
    released = make_release(lake, tmp_path / "work")
    holder = hold(released, lake)
    catalogues = Catalogues(holder)
    catalogues.current()  # as a replica does after it has taken over
    card = released.card
    shutil.rmtree(lake)
    shutil.rmtree(released.path)

    async def ask_one(question: Question) -> Reply:
        return answer_batch(catalogues, [question])[0]

    client = client_of(create_api(catalogues, ask_one))
    document = client.get("/openapi.json")
    body = document.json()["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert client.post("/v1/score", json=body).status_code == 200
    assert client.get("/v1/release").json()["model_card"] == card
    for path in ("/openapi.json", "/docs", "/readyz", "/v1/release", "/v1/assets", "/v1/assets/SIMA3"):
        response = client.get(path)
        assert response.status_code == 200
        assert str(tmp_path) not in response.text


def test_folders_that_go_before_they_are_read_cost_a_card_and_examples_only(small_lake: Path, tmp_path: Path) -> None:
    """404 for the release's card, a document without examples, and no path of the server."""
    lake = tmp_path / "lake"
    shutil.copytree(small_lake, lake)
    released = make_release(lake, tmp_path / "work")
    client = client_of(make_api(hold(released, lake)))
    shutil.rmtree(lake)
    shutil.rmtree(released.path)
    statuses = {path: client.get(path).status_code for path in ("/openapi.json", "/v1/release", "/v1/assets")}
    assert statuses == {"/openapi.json": 200, "/v1/release": 404, "/v1/assets": 200}
    assert str(tmp_path) not in client.get("/v1/release").text


def test_an_unknown_ticker_is_404_with_the_nearest(client: TestClient) -> None:
    """On both routes that take one ticker."""
    for response in (client.post("/v1/predict", json={"ticker": "sima3"}), client.get("/v1/assets/sima3")):
        assert response.status_code == 404
        assert response.json()["nearest"][0] == "SIMA3"
        assert response.headers["x-release-id"] == response.json()["release_id"]


def test_too_few_sessions_is_422_with_needed_and_found(client: TestClient, holder: Holder) -> None:
    """At the asset's 51st session there is a window, at its 50th there is none."""
    assert holder.current is not None
    sessions = holder.current.lake.bars("SIMA3", ["session"])["session"].dt.strftime("%Y-%m-%d").tolist()
    response = client.post("/v1/predict", json={"ticker": "SIMA3", "as_of": sessions[49]})
    assert response.status_code == 422
    assert (response.json()["needed"], response.json()["found"]) == (51, 50)
    ask(client, schemas.PredictAnswer, "POST", "/v1/predict", json={"ticker": "SIMA3", "as_of": sessions[50]})


def test_bulk_answers_every_asset_or_says_why_not(client: TestClient, holder: Holder) -> None:
    """An asset that is too young at as_of and an unknown one are skipped with their reason; nothing is lost."""
    assert holder.current is not None
    spans = holder.current.lake.tickers().set_index("ticker")
    everything = ask(client, schemas.BulkAnswer, "POST", "/v1/predict/bulk", json={"tickers": ["*"]})
    assert [row["ticker"] for row in everything["rows"]] == sorted(spans.index)
    assert everything["skipped"] == []
    early = holder.current.scorer.calendar[40].astype(object).isoformat()
    body = {"tickers": ["SIMA3", "NONE3", "SIMA3"], "as_of": early}
    answer = ask(client, schemas.BulkAnswer, "POST", "/v1/predict/bulk", json=body)
    assert answer["rows"] == []
    assert [(one["ticker"], one["needed"]) for one in answer["skipped"]] == [("SIMA3", 51), ("NONE3", None)]


def test_bulk_says_the_same_in_arrow(client: TestClient) -> None:
    """Columns and values of the JSON rows, and the rest in the schema's metadata."""
    body = {
        "tickers": [
            "*",
        ],
        "as_of": None,
    }
    answer = ask(client, schemas.BulkAnswer, "POST", "/v1/predict/bulk", json=body)
    response = client.post("/v1/predict/bulk", json=body, headers={"Accept": f"application/json;q=0.5, {ARROW}"})
    assert response.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(response.content).read_all()
    rows = [{**row, "session": row["session"].isoformat()} for row in table.to_pylist()]
    assert rows == answer["rows"]
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert metadata["release_id"] == answer["release_id"] == response.headers["x-release-id"]
    assert json.loads(metadata["skipped"]) == []


def test_an_asset_that_stopped_trading_is_stale(served_release: Release, small_lake: Path) -> None:
    """With a limit of zero sessions, one that did not trade on the newest session is; and says how old it is."""
    client = client_of(make_api(hold(served_release, small_lake, stale_after=0)))
    answer = ask(client, schemas.BulkAnswer, "POST", "/v1/predict/bulk", json={"tickers": ["*"], "as_of": "2018-12-28"})
    assert all(row["stale"] == (row["age_sessions"] > 0) for row in answer["rows"])


def test_a_body_that_breaks_the_schema_is_422_and_names_the_field(client: TestClient) -> None:
    """Unknown, missing and mistyped fields, dates that are no ISO dates, NaN, damaged JSON."""
    cases: list[tuple[str, str, bytes]] = [
        ("predict", "ticker", b"{}"),
        ("predict", "tickr", b'{"ticker":"SIMA3","tickr":1}'),
        ("predict", "ticker", b'{"ticker":3}'),
        ("predict", "ticker", b'{"ticker":""}'),
        ("predict", "as_of", b'{"ticker":"SIMA3","as_of":0}'),
        ("predict", "as_of", b'{"ticker":"SIMA3","as_of":"28/12/2018"}'),
        ("predict", "as_of", b'{"ticker":"SIMA3","as_of":"1481241600"}'),
        ("predict", "as_of", b'{"ticker":"SIMA3","as_of":"0"}'),
        ("predict", "as_of", b'{"ticker":"SIMA3","as_of":"2018-12-28T00:00:00"}'),
        ("predict", "as_of", b'{"ticker":"SIMA3","as_of":"2018-02-30"}'),
        ("predict/bulk", "as_of", b'{"tickers":["*"],"as_of":"1481241600"}'),
        ("predict/bulk", "tickers", b'{"tickers":[]}'),
        ("predict/bulk", "tickers.1", b'{"tickers":["SIMA3",7]}'),
        ("predict/bulk", "tickers", b'{"tickers":["*","SIMA3"]}'),
        ("predict/bulk", "as_of", b'{"tickers":["*"],"as_of":"0001-01-01"}'),
    ]
    for path, field, body in cases:
        response = client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["field"]) == (422, field), body


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"ticker":NaN}', b'{"ticker":"\\ud800"}', b'{"ticker":"\xff"}', b"[" * 100_000],
    ids=["empty", "cut", "list", "null", "nan", "surrogate", "no-utf8", "deep"],
)
def test_a_body_that_is_no_json_object_is_422(client: TestClient, body: bytes) -> None:
    """Also what makes other parsers raise or recurse."""
    for path in ("predict", "predict/bulk", "score"):
        response = client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 422
        assert response.json()["error"]


def test_other_content_types_are_415_and_other_paths_404(client: TestClient) -> None:
    """In the one shape of errors."""
    form = client.post("/v1/predict", data={"ticker": "SIMA3"})
    assert (form.status_code, "application/json" in form.json()["hint"]) == (415, True)
    arrow = client.post("/v1/predict", content=b"", headers={"Content-Type": ARROW})
    assert arrow.status_code == 415
    assert client.get("/v1/nothing").json()["error"]
    wrong_method = client.get("/v1/predict")
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")
