"""Open a COTAHIST file, packed or not, and read it in blocks on a second thread."""

import contextlib
import gzip
import io
import lzma
import queue
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from b3dist.data.cotahist.layout import FILE_NAME, HEADER_TYPE
from b3dist.errors import DataError, FormatError

SUFFIXES: Final = (".txt", ".zip", ".gz")
"""Suffixes of COTAHIST files, in any case."""

_BLOCKS_AHEAD: Final = 8
_ENCRYPTED: Final = 1
"""Bit of a ZIP member's flags."""
_DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    gzip.BadGzipFile,
    NotImplementedError,
    RuntimeError,
)


class Source:
    """A COTAHIST file as a stream of its unpacked bytes; use as a context manager.

    Raises:
        DataError: the file is absent.
        FormatError: the suffix is not .TXT, .ZIP or .gz, or the archive is damaged or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closing = contextlib.ExitStack()
        self._raw: IO[bytes]
        try:
            self._raw = self._closing.enter_context(path.open("rb"))
        except FileNotFoundError:
            raise DataError(f"there is no file {path}", hint="name COTAHIST files or folders of them") from None
        self._raw_size = path.stat().st_size
        try:
            with self._damage_named():
                self._stream = self._unpacked()
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing.close()

    @property
    def progress(self) -> float:
        """Share of the (packed) file read so far, between 0 and 1."""
        return min(1.0, self._raw.tell() / self._raw_size) if self._raw_size and not self._raw.closed else 1.0

    def read(self, size: int) -> bytes:
        """The next `size` unpacked bytes; fewer only at the end."""
        with self._damage_named():
            return self._stream.read(size)

    def blocks(self, size: int) -> Iterator[bytes]:
        """The rest of the file in blocks of `size` bytes (the last one may be shorter).

        Unpacking runs on a second thread, which zlib lets run beside NumPy; at most a few blocks wait.
        """
        waiting: queue.Queue[bytes | BaseException] = queue.Queue(maxsize=_BLOCKS_AHEAD)
        stop = threading.Event()

        def unpack() -> None:
            try:
                while not stop.is_set():
                    block = self.read(size)
                    waiting.put(block)
                    if not block:
                        return
            except BaseException as error:  # noqa: BLE001  raised again by the consumer below
                waiting.put(error)

        thread = threading.Thread(target=unpack, name=f"unpack {self.path.name}", daemon=True)
        thread.start()
        try:
            while True:
                item = waiting.get()
                if isinstance(item, BaseException):
                    raise item
                if not item:
                    return
                yield item
        finally:
            stop.set()
            while thread.is_alive():  # it may be waiting for room in the queue
                with contextlib.suppress(queue.Empty):
                    waiting.get(timeout=0.01)
            thread.join()

    @contextlib.contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGED as error:
            raise FormatError(
                f"{self.path}: the archive is damaged or truncated ({error})", hint="get the file again from B3"
            ) from error

    def _unpacked(self) -> IO[bytes]:
        suffix = self.path.suffix.lower()
        if suffix == ".txt":
            return self._raw
        if suffix == ".gz":
            return self._closing.enter_context(io.BufferedReader(gzip.GzipFile(fileobj=self._raw, mode="rb")))
        if suffix == ".zip":
            archive = self._closing.enter_context(zipfile.ZipFile(self._raw))
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) != 1:
                names = ", ".join(member.filename for member in members[:5]) or "none"
                raise FormatError(
                    f"{self.path}: expected one file in the ZIP, found {len(members)} ({names})",
                    hint="unpack it and name the COTAHIST files in it",
                )
            if members[0].flag_bits & _ENCRYPTED:
                raise FormatError(
                    f"{self.path}: the ZIP is encrypted, expected a plain one",
                    hint="unpack it and name the COTAHIST file in it",
                )
            return self._closing.enter_context(archive.open(members[0]))
        raise FormatError(f"{self.path}: expected a file .TXT, .ZIP or .gz, got the suffix {self.path.suffix!r}")


def looks_like_cotahist(path: Path) -> bool:
    """Whether a file met in a folder is meant to be one: by its name, else by the first bytes of its content.

    A file named COTAHIST* is taken even if its content is wrong, so that a damaged one is refused, not overlooked.
    """
    if path.suffix.lower() not in SUFFIXES:
        return False
    if path.name.upper().startswith("COTAHIST"):
        return True
    try:
        with Source(path) as source:
            return source.read(len(HEADER_TYPE + FILE_NAME)) == HEADER_TYPE + FILE_NAME
    except FormatError:
        return False
