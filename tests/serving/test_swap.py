"""A running endpoint takes over releases and sessions under load: no request fails, no answer mixes two releases."""

import asyncio
import signal
from typing import Any

import psutil
import pytest

from tests.serving.live import LiveEndpoint, Load, known_answers

pytestmark = pytest.mark.ray


def swap(live: LiveEndpoint, release_id: str) -> float:
    """Promote, and wait until the command says that it is served; seconds."""
    said = live.said.count("serving release")
    live.desk.promote(release_id)
    return live.wait_until(lambda: live.said.count("serving release") > said)


@pytest.mark.parametrize("times", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_swaps_under_load(live: LiveEndpoint, times: int) -> None:
    """Eight clients, single and bulk: every answer is one release's known one; both releases are seen."""
    desk = live.desk
    ids = [desk.first.release_id, desk.second.release_id]
    with Load(live, known_answers(desk, *ids)) as load:
        for turn in range(times):
            swap(live, ids[(turn + 1) % 2])
            answers = load.answers
            live.wait_until(lambda answers=answers: load.answers > answers + 20)
    assert not load.failures
    assert not load.wrong
    assert load.releases_seen == set(ids)
    assert load.answers > 20 * times
    assert live.release_id() == ids[0]


def test_a_broken_release_is_refused_and_the_old_one_serves_on(live: LiveEndpoint) -> None:
    """A flipped byte: told on stderr and by /readyz, no request fails, and the next promote clears it."""
    desk = live.desk
    serving, broken = live.release_id(), desk.second.release_id
    assert serving == desk.first.release_id
    desk.flip_a_byte(broken)
    with Load(live, known_answers(desk, serving)) as load:
        desk.promote(broken)
        live.wait_until(lambda: f"cannot take over release {broken}" in live.said)
        status, ready = live.ask("GET", "/readyz")
        assert (status, ready["release_id"]) == (200, serving)
        assert "weights.pt" in ready["not_taken_over"]
    desk.flip_a_byte(broken)
    assert not load.failures
    assert not load.wrong
    swap(live, serving)
    assert live.ask("GET", "/readyz")[1]["not_taken_over"] is None


def test_new_sessions_arrive_without_a_restart(live: LiveEndpoint) -> None:
    """An ingest shows in the next answers, of the same processes."""
    before = {one.pid for one in live.replicas()}
    body = {"tickers": ["*"]}
    _, old = live.ask("POST", "/v1/predict/bulk", body)
    assert old["as_of"].startswith("2017-")
    live.desk.ingest_newest_year()
    live.wait_until(lambda: "sessions up to 2018-12-28" in live.said)
    _, new = live.ask("POST", "/v1/predict/bulk", body)
    assert (new["as_of"], new["release_id"]) == ("2018-12-28", old["release_id"])
    assert {one.pid for one in live.replicas()} == before


def test_more_requests_than_the_queue_holds_get_429(live: LiveEndpoint) -> None:
    """With the replicas held, those beyond their slots and the queue are told when to come again; the rest answered."""
    ticker = next(iter(live.desk.first.assets))
    request = (
        f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Authorization: {live.headers['Authorization']}\r\n"
        f'Content-Length: {len(ticker) + 13}\r\n\r\n{{"ticker":"{ticker}"}}'
    ).encode()

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer

    async def flood() -> list[bytes]:
        tasks = [asyncio.create_task(one()) for _ in range(400)]
        try:
            # Held replicas answer nothing, and after 30 s they would be taken for dead.
            await asyncio.wait(tasks, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for replica in replicas:
                replica.send_signal(signal.SIGCONT)
        return await asyncio.gather(*tasks)

    replicas = live.replicas()
    for replica in replicas:
        replica.send_signal(signal.SIGSTOP)
    answers = asyncio.run(flood())
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 429")]
    answered = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200")]
    assert refused
    assert all(b"retry-after: 1" in answer.lower() for answer in refused)
    assert len(refused) + len(answered) == len(answers)
    assert live.ask("POST", "/v1/predict", {"ticker": ticker})[0] == 200


def connections_of(process: psutil.Process) -> list[Any]:
    """Its sockets; none where it just ended."""
    try:
        return list(process.net_connections(kind="inet"))
    except psutil.Error:
        return []


def test_nothing_listens_for_the_network(live: LiveEndpoint) -> None:
    """Every port of the command and of Ray is bound to this machine."""
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in live.processes()
        for connection in connections_of(process)
        if connection.status == "LISTEN"
    }
    assert ("127.0.0.1", live.port) in listening
    outside = {where for where in listening if where[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")}
    assert not outside
