"""B3's files over a real connection to a server that misbehaves on purpose."""

import threading
from collections.abc import Callable, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from b3dist.data.download import count_records, day_file, download, month_file, year_file
from b3dist.data.simulator import simulate
from b3dist.errors import DownloadError

NAME = "COTAHIST_A2018.ZIP"
IMPATIENT_S = 0.5

Reply = Callable[[BaseHTTPRequestHandler, bytes], None]


def whole(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """Answer as a web server does: ranges are honoured."""
    wanted = request.headers.get("Range")
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    if start >= len(content):
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{len(content)}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    request.send_response(206 if wanted else 200)
    if wanted:
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    request.send_header("Content-Length", str(len(content) - start))
    request.end_headers()
    request.wfile.write(content[start:])


def without_ranges(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send everything, whatever was asked for."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def cut_off(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """Promise the rest of the file and hang up half-way."""
    start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    request.send_response(206 if start else 200)
    request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    request.send_header("Content-Length", str(len(content) - start))
    request.end_headers()
    request.wfile.write(content[start : start + (len(content) - start) // 2])
    request.close_connection = True


def flipped_bit(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send the right number of bytes, one of them wrong."""
    middle = len(content) // 2
    without_ranges(request, content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :])


def status(code: int) -> Reply:
    """Answer with nothing but a status."""

    def reply(request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return reply


def web_page(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """Answer 200 with the apology of a maintenance page."""
    page = b"<!DOCTYPE html><html><body>Em manutencao</body></html>"
    request.send_response(200)
    request.send_header("Content-Type", "text/html; charset=utf-8")
    request.send_header("Content-Length", str(len(page)))
    request.end_headers()
    request.wfile.write(page)


def silent(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """Accept the request and say nothing for longer than an impatient client waits."""
    threading.Event().wait(2 * IMPATIENT_S)
    request.close_connection = True


class Server:
    """A server on loopback that plays a list of replies, the last one for ever, and notes what was asked."""

    def __init__(self, content: bytes) -> None:
        self.replies: list[Reply] = [whole]
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers.get("Range")))
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                reply(self, content)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/InstDados/SerHist/"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real file of the official layout, about 150 kB."""
    out = tmp_path_factory.mktemp("market") / "sim"
    simulate(out, assets=9, sessions=250, seed=1)
    return (out / NAME).read_bytes()


@pytest.fixture
def server(content: bytes) -> Iterator[Server]:
    """A server that offers the file, obediently unless told otherwise."""
    running = Server(content)
    yield running
    running.close()


def fetch(server: Server, out: Path, *names: str, refresh: bool = False, timeout_s: float = 60) -> list[str]:
    """Download and return the statuses."""
    files = download(names or [NAME], out, base_url=server.url, timeout_s=timeout_s, pause_s=0.01, refresh=refresh)
    return [file.status for file in files]


def test_names_follow_the_exchange() -> None:
    """Year, month and day files are named as B3 names them."""
    assert year_file(2024) == "COTAHIST_A2024.ZIP"
    assert month_file(2024, 1) == "COTAHIST_M012024.ZIP"
    assert day_file(date(2024, 1, 2)) == "COTAHIST_D02012024.ZIP"


def test_file_arrives_whole_and_alone(server: Server, content: bytes, tmp_path: Path) -> None:
    """A download leaves exactly the file, identical to the server's, and asks for it under its address."""
    assert fetch(server, tmp_path / "new" / "folder") == ["downloaded"]
    assert [entry.name for entry in (tmp_path / "new" / "folder").iterdir()] == [NAME]
    assert (tmp_path / "new" / "folder" / NAME).read_bytes() == content
    assert server.requests == [(f"/InstDados/SerHist/{NAME}", None)]


def test_good_file_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """A verified file on disk costs no request, unless a refresh is wanted."""
    fetch(server, tmp_path)
    assert fetch(server, tmp_path) == ["present"]
    assert len(server.requests) == 1
    assert fetch(server, tmp_path, refresh=True) == ["downloaded"]
    assert len(server.requests) == 2


def test_damaged_file_on_disk_is_replaced(server: Server, content: bytes, tmp_path: Path) -> None:
    """A file that fails verification is fetched again."""
    (tmp_path / NAME).write_bytes(content[: len(content) // 2])
    assert fetch(server, tmp_path) == ["downloaded"]
    assert (tmp_path / NAME).read_bytes() == content


def test_truncated_transfer_continues_where_it_stopped(server: Server, content: bytes, tmp_path: Path) -> None:
    """After two hang-ups the third request asks only for the rest."""
    server.replies = [cut_off, cut_off, whole]
    assert fetch(server, tmp_path) == ["downloaded"]
    assert (tmp_path / NAME).read_bytes() == content
    starts = [0 if asked is None else int(asked[len("bytes=") : -1]) for _, asked in server.requests]
    assert len(starts) == 3
    assert 0 == starts[0] < starts[1] < starts[2] < len(content)


def test_next_call_resumes(server: Server, content: bytes, tmp_path: Path) -> None:
    """When all attempts fail the part file stays, is not named like a good file, and the next call goes on from it."""
    server.replies = [cut_off, status(503)]
    with pytest.raises(DownloadError, match="gave up after 5 attempts: the server answered HTTP 503"):
        fetch(server, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{NAME}.part"]
    held = (tmp_path / f"{NAME}.part").stat().st_size
    assert held > 0
    server.replies = [whole]
    assert fetch(server, tmp_path) == ["downloaded"]
    assert server.requests[-1][1] == f"bytes={held}-"
    assert (tmp_path / NAME).read_bytes() == content


def test_server_without_ranges_starts_over(server: Server, content: bytes, tmp_path: Path) -> None:
    """A server that ignores the range sends everything; nothing is appended twice."""
    server.replies = [cut_off, without_ranges]
    assert fetch(server, tmp_path) == ["downloaded"]
    assert (tmp_path / NAME).read_bytes() == content


def test_complete_part_file_needs_no_bytes(server: Server, content: bytes, tmp_path: Path) -> None:
    """A part file that was complete when the process died is verified and renamed."""
    (tmp_path / f"{NAME}.part").write_bytes(content)
    assert fetch(server, tmp_path) == ["downloaded"]
    assert (tmp_path / NAME).read_bytes() == content


def test_overlong_part_file_is_dropped(server: Server, content: bytes, tmp_path: Path) -> None:
    """A part file longer than the server's file is thrown away and fetched anew."""
    (tmp_path / f"{NAME}.part").write_bytes(content + b"more")
    assert fetch(server, tmp_path) == ["downloaded"]
    assert (tmp_path / NAME).read_bytes() == content


@pytest.mark.parametrize("trouble", [status(500), status(429), flipped_bit, silent])
def test_passing_trouble_is_retried(server: Server, content: bytes, tmp_path: Path, trouble: Reply) -> None:
    """A server error, a refusal for now, a damaged transfer and silence are followed by another attempt."""
    server.replies = [trouble, whole]
    timeout_s = IMPATIENT_S if trouble is silent else 60
    assert fetch(server, tmp_path, timeout_s=timeout_s) == ["downloaded"]
    assert (tmp_path / NAME).read_bytes() == content


def test_lasting_damage_is_refused(server: Server, tmp_path: Path) -> None:
    """A file that never verifies is not left under its name."""
    server.replies = [flipped_bit]
    with pytest.raises(DownloadError, match="arrived damaged"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_absent_day_says_why(server: Server, tmp_path: Path) -> None:
    """A 404 is final; for a holiday the remedy says that there was no session."""
    server.replies = [status(404)]
    with pytest.raises(DownloadError, match="no such file") as holiday:
        fetch(server, tmp_path, day_file(date(2024, 1, 1)))
    assert holiday.value.hint == "2024-01-01 is no session of B3"
    with pytest.raises(DownloadError) as session:
        fetch(server, tmp_path, day_file(date(2024, 1, 2)))
    assert "may not be out yet" in session.value.hint
    assert len(server.requests) == 2


def test_web_page_is_not_taken_for_a_file(server: Server, tmp_path: Path) -> None:
    """An HTML page with status 200 is refused at once, saying what came, and nothing of it is kept."""
    server.replies = [web_page]
    with pytest.raises(DownloadError, match="expected a ZIP archive, got text/html that begins with b'<!DOCTYPE"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1
    assert not (tmp_path / NAME).exists()
    server.replies = [whole]
    assert fetch(server, tmp_path) == ["downloaded"]


def test_files_before_a_failure_stay(server: Server, tmp_path: Path) -> None:
    """When the second of two files is missing, the first one is kept."""
    server.replies = [whole, status(404)]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, NAME, "COTAHIST_A2019.ZIP")
    assert count_records(tmp_path / NAME) > 0


def test_nobody_listening_is_said_clearly(tmp_path: Path, content: bytes) -> None:
    """A dead address ends in one error after bounded attempts."""
    gone = Server(content)
    gone.close()
    with pytest.raises(DownloadError, match="gave up after 5 attempts: ConnectionError"):
        fetch(gone, tmp_path)


@pytest.mark.parametrize("address", ["somewhere", "ftp://127.0.0.1/", "http://"])
def test_an_address_that_is_none_is_not_tried_again(tmp_path: Path, address: str) -> None:
    """What no second attempt can mend is said at once, with the form an address must have."""
    with pytest.raises(DownloadError) as refusal:
        download([NAME], tmp_path, base_url=address, pause_s=60)
    assert "http://" in refusal.value.hint
