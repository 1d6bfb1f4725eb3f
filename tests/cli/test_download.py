"""`b3dist download` as a user runs it, against a server on loopback."""

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer

from b3dist.cli.download import parse_years
from b3dist.data.simulator import simulate
from tests.cli.conftest import Outcome


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a line per request."""

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that offers the files of a simulated market."""
    folder = tmp_path_factory.mktemp("server") / "sim"
    simulate(folder, assets=1, sessions=400, seed=1)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_years_arrive_and_stay(b3dist: Callable[..., Outcome], address: str, tmp_path: Path) -> None:
    """A range of years is fetched; a second call finds them present."""
    for status in ("downloaded", "present"):
        done = b3dist("download", "--years", "2017-2018", "--out", tmp_path, "--base-url", address, "--json")
        assert done.exit_code == 0, done
        files = done.answer["files"]
        assert [Path(file["path"]).name for file in files] == ["COTAHIST_A2017.ZIP", "COTAHIST_A2018.ZIP"]
        assert {file["status"] for file in files} == {status}
        assert all(file["records"] > 100 for file in files)


def test_absent_day_exits_1(b3dist: Callable[..., Outcome], address: str, tmp_path: Path) -> None:
    """A holiday's file does not exist; the answer says so."""
    done = b3dist("download", "--day", "2024-01-01", "--out", tmp_path, "--base-url", address, "--json")
    assert done.exit_code == 1
    assert "COTAHIST_D01012024.ZIP" in done.answer["error"]
    assert "no session" in done.answer["hint"]


@pytest.mark.parametrize(
    "options", [[], ["--years", "next"], ["--years", "2024-2022"], ["--years", "2022-"], ["--day", "02/01/2024"]]
)
def test_wrong_usage_exits_2(b3dist: Callable[..., Outcome], tmp_path: Path, options: list[str]) -> None:
    """Nothing to fetch, words for years, a range backwards and a date of another form are wrong usage."""
    assert b3dist("download", "--out", tmp_path, *options).exit_code == 2


def test_years_are_read_in_every_form() -> None:
    """One year, a range, a list of both."""
    assert parse_years("2024") == (2024,)
    assert parse_years("2022-2024") == (2022, 2023, 2024)
    assert parse_years("2024, 2019-2020") == (2019, 2020, 2024)
    with pytest.raises(typer.BadParameter):
        parse_years("1985")
