"""B3's public history files: fetched, resumed, verified, and only then given their name.

A file grows as NAME.part and is renamed once its ZIP checksum, every record and the trailer's count are good. What a
broken connection left is continued by an HTTP range request, in the same call or in a later one.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, Literal

import numpy as np
import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

from b3dist.data.cotahist import CotahistReader
from b3dist.data.exchange import b3_sessions
from b3dist.errors import DownloadError, FormatError

BASE_URL: Final = "https://bvmf.bmfbovespa.com.br/InstDados/SerHist/"
"""Where B3 publishes the historical quotes."""

Progress = Callable[[str, int, int | None], None]
"""Called with file name, bytes so far and bytes in all (None where the server does not say)."""

_ATTEMPTS: Final = 5
_LONGEST_PAUSE_S: Final = 60.0
_CHUNK: Final = 1 << 14  # what a broken connection had sent of a chunk is lost
_ZIP_START: Final = b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """One file that is now there and good."""

    path: Path
    records: int
    """Quote records in it."""
    status: Literal["downloaded", "present"]
    """present: it was there before and is good."""


class _Interrupted(Exception):
    """This attempt failed in a way that another may not."""


def year_file(year: int) -> str:
    """Name of a year's file, such as COTAHIST_A2024.ZIP."""
    return f"COTAHIST_A{year:04d}.ZIP"


def month_file(year: int, month: int) -> str:
    """Name of a month's file, such as COTAHIST_M012024.ZIP."""
    return f"COTAHIST_M{month:02d}{year:04d}.ZIP"


def day_file(session: date) -> str:
    """Name of one session's file, such as COTAHIST_D02012024.ZIP."""
    return f"COTAHIST_D{session:%d%m%Y}.ZIP"


def download(
    names: Iterable[str],
    out: Path,
    *,
    base_url: str = BASE_URL,
    refresh: bool = False,
    timeout_s: float = 60.0,
    pause_s: float = 1.0,
    progress: Progress | None = None,
) -> list[Downloaded]:
    """Fetch files into the folder `out`, in the given order; good files that are there already are kept.

    Args:
        names: as made by year_file, month_file and day_file.
        out: made where absent.
        base_url: folder on the server.
        refresh: fetch again what is there already (the current year's file grows every session).
        timeout_s: longest silence of the server.
        pause_s: pause before the second attempt; it doubles from attempt to attempt.
        progress: told about every chunk.

    Raises:
        DownloadError: the server has no such file, sends something else, or fails five times in a row. Files fetched
            before stay, and a part file is continued by the next call.
        OSError: `out` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"  # a ZIP gains nothing, and ranges count the bytes as stored
        fetcher = _Fetcher(session, base_url.rstrip("/"), timeout_s, pause_s, progress or (lambda *_: None))
        return [_obtain(fetcher, out / name, refresh=refresh) for name in names]


def _obtain(fetcher: "_Fetcher", path: Path, *, refresh: bool) -> Downloaded:
    if path.exists() and not refresh:
        try:
            return Downloaded(path=path, records=count_records(path), status="present")
        except FormatError:
            pass  # damaged: it is fetched again and replaced
    return Downloaded(path=path, records=fetcher.fetch(path), status="downloaded")


def count_records(path: Path) -> int:
    """Quote records of a file, every byte of it checked.

    Raises:
        FormatError: the archive or a record is damaged, or the trailer disagrees.
    """
    with CotahistReader(path) as reader:
        for _ in reader.blocks():
            pass
        return reader.records


class _Fetcher:
    """One connection to the server and how patient to be with it."""

    def __init__(
        self, session: requests.Session, base_url: str, timeout_s: float, pause_s: float, progress: Progress
    ) -> None:
        self._session = session
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._progress = progress

    def fetch(self, path: Path) -> int:
        """Fetch one file, verify it, rename it into place; returns its number of quote records."""
        part = path.with_name(f"{path.name}.part")
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(min(self._pause_s * 2 ** (attempt - 1), _LONGEST_PAUSE_S))
            try:
                self._continue_part(part, path.name)
                return _accept(part, path)
            except _Interrupted as interruption:
                reason = str(interruption)
        raise DownloadError(
            f"{self._base_url}/{path.name}: gave up after {_ATTEMPTS} attempts: {reason}",
            hint="run the same command again later: it continues where this one stopped",
        )

    def _continue_part(self, part: Path, name: str) -> None:
        """Bring `part` from what it holds to the server's whole file."""
        held = part.stat().st_size if part.exists() else 0
        url = f"{self._base_url}/{name}"
        headers = {"Range": f"bytes={held}-"} if held else {}
        try:
            with self._session.get(url, headers=headers, stream=True, timeout=self._timeout_s) as response:
                if response.status_code == requests.codes.requested_range_not_satisfiable and held:
                    _check_complete(part, response, held)
                    return
                _check_status(response, url, name)
                self._receive(response, part, held)
        except requests.exceptions.SSLError as error:
            raise DownloadError(
                f"{url}: the server's certificate could not be verified: {error}",
                hint="behind a company proxy, name its certificates in REQUESTS_CA_BUNDLE",
            ) from error
        except (InvalidSchema, InvalidURL, MissingSchema) as error:
            raise DownloadError(f"{url}: {error}", hint="--base-url must begin with http:// or https://") from error
        except requests.RequestException as error:
            raise _Interrupted(f"{type(error).__name__}: {error}") from error

    def _receive(self, response: requests.Response, part: Path, held: int) -> None:
        """Append the body to `part`, or start over where the server ignored the range."""
        if response.status_code == requests.codes.partial_content:
            start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
            if start != str(held):
                part.unlink()
                raise _Interrupted(f"asked for bytes from {held}, got Content-Range {start or 'none'!r}")
        else:
            held = 0
        length = response.headers.get("Content-Length", "")
        expected = held + int(length) if length.isdigit() else None
        with part.open("ab" if held else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                if not held and not chunk.startswith(_ZIP_START):
                    file.truncate(0)
                    raise DownloadError(
                        f"{response.url}: expected a ZIP archive, got {_describe(response, chunk)}",
                        hint="the address may be under maintenance, or a proxy answered: open it in a browser",
                    )
                file.write(chunk)
                held += len(chunk)
                self._progress(part.stem, held, expected)
        if expected is not None and held != expected:
            raise _Interrupted(f"the connection ended after {held} of {expected} bytes")


def _check_status(response: requests.Response, url: str, name: str) -> None:
    status = response.status_code
    if status in (requests.codes.ok, requests.codes.partial_content):
        return
    if status == requests.codes.not_found:
        raise DownloadError(f"{url}: B3 has no such file (HTTP 404)", hint=_why_absent(name))
    if status >= 500 or status in (requests.codes.request_timeout, requests.codes.too_many_requests):
        raise _Interrupted(f"the server answered HTTP {status}")
    raise DownloadError(
        f"{url}: expected HTTP 200, got {status} {response.reason}", hint="open the address in a browser"
    )


def _check_complete(part: Path, response: requests.Response, held: int) -> None:
    """The server has no bytes after `held`: either `part` is whole, or it is longer than the file and of no use."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if total.isdigit() and int(total) != held:
        part.unlink()
        raise _Interrupted(f"the part file held {held} bytes of a file of {total}")


def _accept(part: Path, path: Path) -> int:
    """Give a complete part file its name if it is good; returns its number of quote records."""
    candidate = path.with_name(f".{path.name}")  # the reader goes by the suffix
    part.replace(candidate)
    try:
        records = count_records(candidate)
    except FormatError as error:
        candidate.unlink()  # continuing a damaged file cannot mend it
        raise _Interrupted(f"{path.name} arrived damaged ({error})") from error
    except BaseException:
        candidate.replace(part)
        raise
    candidate.replace(path)
    return records


def _why_absent(name: str) -> str:
    kind, digits = name[len("COTAHIST_")], name[len("COTAHIST_D") : -len(".ZIP")]
    if kind != "D":
        return "B3 keeps years from 1986 on, but months and days of recent time only; the newest may not be out yet"
    session = date(int(digits[4:]), int(digits[2:4]), int(digits[:2]))
    day = np.datetime64(session)
    if not len(b3_sessions(day, day)):
        return f"{session} is no session of B3"
    return f"the file of {session} may not be out yet (they appear in the evening), or be too old: use the year's file"


def _describe(response: requests.Response, start: bytes) -> str:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return f"{kind or 'something else'} that begins with {start[:40]!r}"
