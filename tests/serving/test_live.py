"""The endpoint as users meet it: `b3dist serve` on Ray Serve, asked over a socket."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import schemathesis

from b3dist.release import Release
from tests.serving.browser import find_browser, open_page
from tests.serving.guarded import Live, live_endpoint
from tests.serving.property_requests import try_routes

pytestmark = pytest.mark.ray

MANUAL = Path(__file__).parents[2] / "docs" / "http.md"


@pytest.fixture(scope="module")
def live(served_release: Release, small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The shared release on the small lake, behind a token; its folder looks like a user's."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "lake").symlink_to(small_lake)
    (folder / "releases").symlink_to(served_release.path.parent)
    (folder / ".venv").symlink_to(sys.prefix)
    with live_endpoint(folder, served_release.release_id) as endpoint:
        yield endpoint


def test_the_lines_of_the_manual_work(live: Live) -> None:
    """Every shell line of docs/http.md, run as it stands but for the address; no route is left out."""
    manual = MANUAL.read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", manual, flags=re.MULTILINE | re.DOTALL))
    assert script.count("http://127.0.0.1:8000") == 1
    document = httpx2.get(f"{live.url}/openapi.json").json()
    for path in document["paths"]:
        assert path.replace("{ticker}", "SIMA3") in script
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("http://127.0.0.1:8000", live.url)],
        cwd=live.folder,
        env={**os.environ, "B3DIST_TOKEN": live.token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]


def test_a_token_from_the_environment_is_required_and_never_written(live: Live) -> None:
    """The replica inherits it; neither Ray's logs nor the terminal nor Serve's configuration show it."""
    assert httpx2.get(f"{live.url}/v1/assets").status_code == 401
    assert httpx2.get(f"{live.url}/v1/assets", headers=live.headers).status_code == 200
    assert live.token not in "".join(live.lines)
    logs = Path("/tmp/ray/session_latest/logs")
    written = [file for file in logs.rglob("*") if file.is_file()]
    assert any("replica" in file.name for file in written)
    leaks = [file.name for file in written if live.token.encode() in file.read_bytes()]
    assert leaks == []


def test_metrics_show_requests_batches_release_and_data_age(live: Live, served_release: Release) -> None:
    """Within a few seconds of a request, as Ray gathers them."""
    httpx2.post(f"{live.url}/v1/predict", headers=live.headers, json={"ticker": "SIMA3"})
    wanted = (
        r'ray_serve_num_http_requests_total{.*route="/v1/predict"',
        r"ray_serve_http_request_latency_ms_bucket",
        r"ray_serve_actual_batch_size_bucket",
        rf'ray_b3dist_release_info{{.*release_id="{served_release.release_id}".*}} 1',
        r"ray_b3dist_data_age_days{.*} \d+",
    )
    deadline = time.monotonic() + 40
    while True:
        page = httpx2.get(f"{live.url}/metrics", headers=live.headers).text
        missing = [pattern for pattern in wanted if not re.search(pattern, page)]
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert missing == []


def test_questions_asked_together_are_answered_as_alone(live: Live, served_release: Release) -> None:
    """Whatever batches they fall into, each gets its own ticker's answer."""

    def ask(client: httpx2.Client, ticker: str) -> dict[str, object]:
        answer = client.post("/v1/predict", json={"ticker": ticker}).json()
        return {name: answer[name] for name in ("ticker", "session", "action", "price", "model_sha256")}

    with httpx2.Client(base_url=live.url, headers=live.headers) as client:
        alone = {ticker: ask(client, ticker) for ticker in served_release.assets}
    wrong: list[object] = []

    def many(first: int) -> None:
        tickers = list(alone)
        with httpx2.Client(base_url=live.url, headers=live.headers) as client:
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
def test_more_than_the_queue_holds_is_429_with_a_time_to_come_back(live: Live) -> None:
    """Nothing else than 200 and 429 comes, and afterwards the endpoint answers as before."""
    statuses: Counter[int] = Counter()
    without_time: list[int] = []

    def press() -> None:
        with httpx2.Client(base_url=live.url, headers=live.headers, timeout=120) as client:
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
    assert httpx2.get(f"{live.url}/readyz").status_code == 200


@pytest.mark.slow
def test_thousands_of_requests_made_from_the_document_meet_no_defect(live: Live) -> None:
    """Through the proxy, which has a mind of its own about malformed requests."""
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    assert try_routes(schema, per_route=500, headers=live.headers) >= 2_000


@pytest.mark.slow
@pytest.mark.parametrize("route", ["post /v1/predict", "post /v1/predict/bulk", "post /v1/score", "get /v1/assets"])
def test_docs_run_their_examples_in_a_browser(live: Live, tmp_path: Path, route: str) -> None:
    """Swagger UI renders without asking any other host, and Execute on the example, as it stands, gives 200."""
    command = find_browser()
    if command is None:
        pytest.skip("no Chromium on this machine")
    method, path = route.split()
    with open_page(command, tmp_path / "profile") as page:
        page.send("Page.navigate", url=f"{live.url}/docs")
        assert page.wait_for("document.querySelectorAll('.opblock').length") == 9
        page.evaluate(f"ui.preauthorizeApiKey('token', {live.token!r})")
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
