"""Read COTAHIST files: verified blocks of records, in bounded memory."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import pandas as pd

from b3dist.data.cotahist.columns import Rows, empty_rows, to_frame
from b3dist.data.cotahist.layout import HEADER_TYPE, RECORD_LENGTH, TRAILER_TYPE
from b3dist.data.cotahist.source import Source
from b3dist.data.cotahist.verify import RecordCheck, printable, read_header, read_trailer, refuse
from b3dist.errors import FormatError

ROWS_PER_BLOCK: Final = 4096
"""Records checked at once: 1 MB, which stays in a core's second-level cache."""

_LONGEST_LINE: Final = 4096


class CotahistReader:
    """One COTAHIST file, read once from start to end; use as a context manager.

    `blocks` yields the quote records, each byte of which was checked: line ends, record type, digits where digits
    belong, dates that exist. The trailer comes last: a file is known to be good only when `blocks` is exhausted.

    Raises:
        DataError: the file is absent.
        FormatError: the file breaks the layout; the message names file, line, field, what was expected and found.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = 0
        """Quote records yielded so far."""
        self._source = Source(path)
        try:
            self._read_header()
        except BaseException:
            self._source.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._source.__exit__()

    @property
    def generated(self) -> date:
        """Date of the header: when B3 made the file."""
        return self._header.generated

    @property
    def progress(self) -> float:
        """Share of the file read so far, between 0 and 1."""
        return self._source.progress

    def _read_header(self) -> None:
        start = self._source.read(RECORD_LENGTH + 1)
        if not start:
            raise FormatError(f"{self.path}: expected a header record, got an empty file")
        if len(start) <= RECORD_LENGTH or start[RECORD_LENGTH : RECORD_LENGTH + 1] not in (b"\r", b"\n"):
            line = start.splitlines()[0] if start.splitlines() else b""
            if not line.startswith(HEADER_TYPE):
                refuse(self.path, 1, "record type", "00 (a header)", printable(line[:2]))
            length = len(line) if len(line) < len(start) else f"at least {len(start)}"
            refuse(self.path, 1, "record length", str(RECORD_LENGTH), str(length))
        self._line_end = b"\n"
        if start.endswith(b"\r"):
            self._line_end = b"\r\n"
            if (after := self._source.read(1)) != b"\n":
                refuse(self.path, 1, "line end", "CR LF", "CR " + printable(after))
        self._header = read_header(self.path, start[:RECORD_LENGTH])

    def blocks(self) -> Iterator[Rows]:
        """The quote records in file order, some thousands at a time: (rows, 245 + line end) uint8, read-only."""
        check = RecordCheck(self._line_end, ROWS_PER_BLOCK)
        stride = check.stride
        blocks = self._source.blocks(ROWS_PER_BLOCK * stride)
        for block in blocks:
            count = len(block) // stride
            rows = np.frombuffer(block, np.uint8, count * stride).reshape(count, stride)
            good = check.count_good(rows)
            if good:
                self.records += good
                yield rows[:good]
            if good < count or len(block) < ROWS_PER_BLOCK * stride:
                self._finish(block[good * stride :], blocks)
                return
        self._refuse_end(b"")

    def _finish(self, rest: bytes, blocks: Iterator[bytes]) -> None:
        """What follows the last good quote record: the trailer, or the reason to refuse the file."""
        while len(rest) < _LONGEST_LINE and (more := next(blocks, b"")):
            rest += more
        line_number = self.records + 2
        if not rest.startswith(TRAILER_TYPE):
            self._refuse_line(rest, line_number)
        line, _, tail = rest.partition(b"\n")
        line = line.removesuffix(b"\r")
        if len(line) != RECORD_LENGTH:
            refuse(self.path, line_number, "record length", str(RECORD_LENGTH), str(len(line)))
        read_trailer(self.path, line_number, line, header=self._header, found=self.records + 2)
        while tail or (tail := next(blocks, b"")):
            # Files made under DOS end with 0x1A; editors add empty lines.
            if tail.strip(b"\r\n \x1a"):
                refuse(self.path, line_number + 1, "end of file", "nothing after the trailer", printable(tail[:20]))
            tail = b""

    def _refuse_line(self, rest: bytes, line_number: int) -> None:
        if not rest.strip(b"\r\n \x1a"):
            self._refuse_end(rest)
        line, newline, _ = rest.partition(b"\n")
        if not newline and len(line) < RECORD_LENGTH:
            where = "before the end of the file (it may be truncated)"
            refuse(self.path, line_number, "record length", str(RECORD_LENGTH), f"{len(line)} {where}")
        check = RecordCheck(self._line_end, 1)
        check.refuse_line(self.path, line_number, line + newline)

    def _refuse_end(self, _rest: bytes) -> None:
        raise FormatError(
            f"{self.path}, line {self.records + 2}: expected a trailer record (type 99), got the end of the file",
            hint="the file is incomplete: get it again from B3",
        )


def iter_cotahist(path: Path) -> Iterator[pd.DataFrame]:
    """The quote records of a file as typed frames of some thousand rows, in bounded memory.

    Trailer and record count are verified at the end: keep nothing of the frames if the iteration raises.

    Raises:
        DataError: the file is absent.
        FormatError: the file breaks the layout.
    """
    with CotahistReader(path) as reader:
        for rows in reader.blocks():
            yield to_frame(rows)


def read_cotahist(path: Path) -> pd.DataFrame:
    """All quote records of a file: one column per field in layout order, one row per record in file order.

    session and expiry are datetime64[s] (expiry 00000000: NaT), prices float64 in BRL as printed (per `quote_factor`
    shares), whole numbers integers, texts without trailing blanks.

    Raises:
        DataError: the file is absent.
        FormatError: the file breaks the layout; nothing is returned.
    """
    frames = list(iter_cotahist(path))
    return pd.concat(frames, ignore_index=True) if frames else to_frame(empty_rows())
