"""A killed replica costs at most the requests it was working on."""

import signal

import pytest

from tests.serving.live import LiveEndpoint, Load, known_answers

pytestmark = pytest.mark.ray

NUM_CLIENTS = 8


def kill_one(live: LiveEndpoint, load: Load) -> float:
    """SIGKILL a replica under load; seconds until the command says that two run again."""
    replicas = live.replicas()
    assert len(replicas) == 2
    said = live.said.count("2 replicas are running")
    replicas[0].send_signal(signal.SIGKILL)
    took = live.wait_until(lambda: live.said.count("2 replicas are running") > said)
    answers = load.answers
    live.wait_until(lambda: load.answers > answers + 50)
    return took


def test_a_killed_replica_costs_only_what_it_worked_on(live: LiveEndpoint) -> None:
    """No answer is wrong, at most the requests in flight there fail, each succeeds when sent again; two run again."""
    desk = live.desk
    known = known_answers(desk, live.release_id())
    with Load(live, known, num_clients=NUM_CLIENTS, retries=3) as load:
        live.wait_until(lambda: load.answers > 50)
        kill_one(live, load)
    assert not load.wrong
    assert not load.lost
    assert len(load.failures) <= NUM_CLIENTS


@pytest.mark.slow
def test_replicas_killed_one_after_the_other(live: LiveEndpoint) -> None:
    """Three times in a row, the newcomers included; each is replaced within 30 s."""
    known = known_answers(live.desk, live.release_id())
    with Load(live, known, num_clients=NUM_CLIENTS, retries=3) as load:
        live.wait_until(lambda: load.answers > 50)
        assert max(kill_one(live, load) for _ in range(3)) < 30
    assert not load.wrong
    assert not load.lost
    assert len(load.failures) <= 3 * NUM_CLIENTS
