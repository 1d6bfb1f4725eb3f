"""The endpoint as users meet it: `b3dist serve` on Ray Serve, asked over a socket."""

import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import schemathesis

from tests.serving.browser import find_browser, open_page
from tests.serving.conftest import TOKEN
from tests.serving.live import PATIENCE_S, LiveEndpoint, command_of
from tests.serving.property_requests import try_routes

pytestmark = pytest.mark.ray

MANUAL = Path(__file__).parents[2] / "docs" / "http.md"


@pytest.fixture
def anyone(live: LiveEndpoint) -> Iterator[httpx2.Client]:
    """A client without a token, as patient as these tests are."""
    with httpx2.Client(base_url=live.url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def client(live: LiveEndpoint) -> Iterator[httpx2.Client]:
    """The same with the token."""
    with httpx2.Client(base_url=live.url, headers=live.headers, timeout=PATIENCE_S) as client:
        yield client


def test_the_lines_of_the_manual_work(live: LiveEndpoint, anyone: httpx2.Client) -> None:
    """Every shell line of docs/http.md, run as it stands but for the address; no route is left out."""
    manual = MANUAL.read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", manual, flags=re.MULTILINE | re.DOTALL))
    assert script.count("http://127.0.0.1:8000") == 1
    document = anyone.get("/openapi.json").json()
    for path in document["paths"]:
        assert path.replace("{ticker}", "SIMA3") in script
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("http://127.0.0.1:8000", live.url)],
        cwd=live.desk.lake.parent,
        env={**os.environ, "B3DIST_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]


def test_a_token_from_the_environment_is_required_and_never_written(
    live: LiveEndpoint, anyone: httpx2.Client, client: httpx2.Client
) -> None:
    """The replica inherits it; neither Ray's logs nor the terminal nor Serve's configuration show it."""
    assert anyone.get("/v1/assets").status_code == 401
    assert client.get("/v1/assets").status_code == 200
    assert TOKEN not in live.said
    logs = {word.partition("=")[2] for one in live.processes() for word in command_of(one) if "--log_dir=" in word}
    written = [file for folder in logs for file in Path(folder).rglob("*") if file.is_file()]
    assert any("replica" in file.name for file in written)
    leaks = [file.name for file in written if TOKEN.encode() in file.read_bytes()]
    assert leaks == []


def test_metrics_show_requests_batches_release_and_data_age(live: LiveEndpoint, client: httpx2.Client) -> None:
    """Some seconds after a request, as Ray gathers them."""
    client.post("/v1/predict", json={"ticker": "SIMA3"})
    wanted = (
        r'ray_serve_num_http_requests_total{.*route="/v1/predict"',
        r"ray_serve_http_request_latency_ms_bucket",
        r"ray_serve_actual_batch_size_bucket",
        rf'ray_b3dist_release_info{{.*release_id="{live.desk.first.release_id}".*}} 1',
        r"ray_b3dist_data_age_days{.*} \d+",
    )
    deadline = time.monotonic() + PATIENCE_S
    while True:
        page = client.get("/metrics").text
        missing = [pattern for pattern in wanted if not re.search(pattern, page)]
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert missing == []


def test_questions_asked_together_are_answered_as_alone(live: LiveEndpoint, client: httpx2.Client) -> None:
    """Whatever batches they fall into, each gets its own ticker's answer."""

    def ask(client: httpx2.Client, ticker: str) -> dict[str, object]:
        answer = client.post("/v1/predict", json={"ticker": ticker}).json()
        return {name: answer[name] for name in ("ticker", "session", "action", "price", "model_sha256")}

    alone = {ticker: ask(client, ticker) for ticker in live.desk.first.assets}
    wrong: list[object] = []

    def many(first: int) -> None:
        tickers = list(alone)
        with httpx2.Client(base_url=live.url, headers=live.headers, timeout=PATIENCE_S) as client:
            for turn in range(25):
                ticker = tickers[(first + turn) % len(tickers)]
                if (answer := ask(client, ticker)) != alone[ticker]:
                    wrong.append((ticker, answer))

    threads = [threading.Thread(target=many, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.slow
def test_more_than_the_queue_holds_is_429_with_a_time_to_come_back(live: LiveEndpoint, anyone: httpx2.Client) -> None:
    """Nothing else than 200 and 429 comes, and afterwards the endpoint answers as before."""
    statuses: Counter[int] = Counter()
    without_time: list[int] = []

    def press() -> None:
        with httpx2.Client(base_url=live.url, headers=live.headers, timeout=PATIENCE_S) as client:
            for _ in range(3):
                response = client.post("/v1/predict/bulk", json={"tickers": ["*"]})
                statuses[response.status_code] += 1
                if response.status_code == 429 and "retry-after" not in response.headers:
                    without_time.append(429)

    threads = [threading.Thread(target=press) for _ in range(500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.keys() == {200, 429}
    assert without_time == []
    assert anyone.get("/readyz").status_code == 200


@pytest.mark.slow
def test_thousands_of_requests_made_from_the_document_meet_no_defect(live: LiveEndpoint) -> None:
    """Through the proxy, which has a mind of its own about malformed requests."""
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    assert try_routes(schema, per_route=500, headers=live.headers) >= 2_000


@pytest.mark.slow
@pytest.mark.parametrize("route", ["post /v1/predict", "post /v1/predict/bulk", "post /v1/score", "get /v1/assets"])
def test_docs_run_their_examples_in_a_browser(live: LiveEndpoint, tmp_path: Path, route: str) -> None:
    """Swagger UI renders without asking any other host, and Execute on the example, as it stands, gives 200."""
    command = find_browser()
    if command is None:
        pytest.skip("no Chromium on this machine")
    method, path = route.split()
    with open_page(command, tmp_path / "profile") as page:
        page.send("Page.navigate", url=f"{live.url}/docs")
        assert page.wait_for("document.querySelectorAll('.opblock').length") == 9
        page.evaluate(f"ui.preauthorizeApiKey('token', {TOKEN!r})")
        block = f"""[...document.querySelectorAll('.opblock-{method}')].find(
            one => one.querySelector('.opblock-summary-path').dataset.path === '{path}')"""
        page.evaluate(f"{block}.querySelector('.opblock-summary-control').click()")
        page.wait_for(f"!!{block}.querySelector('button.execute')")
        answer = f"{block}.querySelector('.live-responses-table tbody .response-col_status')"
        # The page may still be drawing itself anew when the button appears, and then loses the click.
        execute = f"{block}.querySelector('button.execute')?.click()"
        status = page.wait_for(f"{answer}?.innerText || ({execute}, '')", every_s=2)
        assert status.split()[0] == "200"
        assert page.errors == []
    assert page.requested
    assert all(url.startswith((live.url, "data:", "about:", "blob:")) for url in page.requested), page.requested
