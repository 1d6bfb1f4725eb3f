"""Put COTAHIST files into a lake: all of a file or nothing, seen whole or not at all, in any order."""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from b3dist.data.cotahist import FIELD, CotahistReader, looks_like_cotahist
from b3dist.data.cotahist.columns import Rows, as_dates, day_numbers
from b3dist.data.cotahist.verify import printable, refuse
from b3dist.data.lake.holdings import Holdings
from b3dist.data.lake.manifest import SourceFile
from b3dist.data.lake.reader import Lake
from b3dist.data.lake.repeats import RepeatFinder, Repeats
from b3dist.data.lake.writer import LakeWriter, Stage
from b3dist.data.universe import check_universe, select_bars, to_bars
from b3dist.errors import DataError, FormatError

Progress = Callable[[Path, float], None]
"""Called now and then with a file and the share of it that is read, between 0 and 1."""

_ROWS_AT_ONCE: Final = 32_768
_HASH_BLOCK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class IngestedFile:
    """What became of one file."""

    path: str
    records: int
    """Quote records (type 01) in the file, also if it was in the lake before."""
    kept: int
    """Records that belong to the universe."""
    sha256: str
    status: str
    """ingested, unchanged (its content was in the lake) or refused."""
    error: str | None = None
    """Why it was refused."""
    bars: int = 0
    """Bars of the lake that come from it: none where files generated later hold all its sessions."""
    sessions_taken: int = 0
    """Sessions that another file held before this ingest."""
    tickers_gone: Sequence[str] = ()
    """Tickers that had bars among those sessions and are no longer in the lake."""
    repeated: Repeats | None = None
    """Bars that a later record of the same file replaced."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON, without what does not apply; of the repeated bars their number."""
        content = {name: value for name, value in vars(self).items() if value is not None}
        return {**content, "repeated": self.repeated.count if self.repeated else 0}


@dataclass(frozen=True, kw_only=True)
class IngestResult:
    """What became of the files, and the whole lake afterwards."""

    files: list[IngestedFile]
    bars: int
    tickers: int
    first_session: date | None
    last_session: date | None
    seconds: float
    classes: dict[str, int]
    """Bars of the lake by class."""
    universe: str
    ignored: list[str]
    """Files met in folders that are no COTAHIST files."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON; dates as ISO strings."""
        content = {name: value for name, value in vars(self).items() if name != "files"}
        for name in ("first_session", "last_session"):
            content[name] = content[name].isoformat() if content[name] else None
        return {"files": [file.to_dict() for file in self.files], **content}


def ingest(
    sources: Sequence[Path],
    lake: Path,
    *,
    universe: str | None = None,
    events_file: Path | None = None,
    renames_file: Path | None = None,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> IngestResult:
    """Add COTAHIST files to a lake, or make one.

    Every session belongs to one file: the one generated last by its header date, in whatever order files are ingested
    (several of that date: the one with more records). A file whose content is in the lake already is not read again.
    All files are verified before anything changes; the change is one rename.

    Args:
        sources: files, or folders of them; in a folder, files that are no COTAHIST files are left alone.
        lake: its folder; made if absent.
        universe: shares, funds, bdrs or all; None: the lake's own, `shares` for a new one.
        events_file: the user's share events, laid over the detected ones now and in later ingests.
        renames_file: the user's renames, applied now and in later ingests.
        keep_going: ingest the good files even if others are refused; otherwise one bad file refuses all.
        progress: told about the reading.

    Raises:
        DataError: a source is absent, or a folder holds no COTAHIST file.
        FormatError: a file breaks the layout.
        LakeError: the lake is damaged, is being written, or was made for another universe.
        StorageError: the lake cannot be written; it is unchanged.
    """
    started = time.monotonic()
    if universe is not None:
        check_universe(universe)
    paths, ignored = find_files(sources)
    with LakeWriter(lake, universe=universe) as writer:
        writer.remember_inputs(events_file=events_file, renames_file=renames_file)
        before = Holdings.of(lake)
        files = []
        for path in paths:
            try:
                files.append(_take(path, writer, progress))
            except FormatError as error:
                if not keep_going:
                    raise
                files.append(
                    IngestedFile(path=str(path), records=0, kept=0, sha256="", status="refused", error=error.message)
                )
        writer.commit()
    if renames_file is not None:
        before = replace(before, tickers={})  # a ticker may be gone because it was renamed
    files = _with_holdings(files, lake, before)
    return IngestResult(files=files, ignored=ignored, **_describe(lake), seconds=time.monotonic() - started)


def find_files(sources: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The COTAHIST files that the sources name, each once, and the other files met in folders.

    Raises:
        DataError: a source is absent, or a folder holds no COTAHIST file (folders in it are not searched).
    """
    found: dict[Path, Path] = {}
    ignored = []
    for source in sources:
        if source.is_dir():
            inside = sorted(path for path in source.iterdir() if path.is_file())
            wanted = [path for path in inside if looks_like_cotahist(path)]
            ignored += [str(path) for path in inside if path not in wanted]
            if not wanted:
                raise DataError(f"the folder {source} holds no COTAHIST file", hint="expected COTAHIST_A2024.ZIP ...")
        elif source.exists():
            wanted = [source]
        else:
            raise DataError(f"there is no file or folder {source}", hint="name COTAHIST files or folders of them")
        for path in wanted:
            found.setdefault(path.resolve(), path)
    return list(found.values()), ignored


def _take(path: Path, writer: LakeWriter, progress: Progress | None) -> IngestedFile:
    digest = _sha256(path)
    source, status, repeats = writer.known(digest), "unchanged", Repeats()
    if source is None:
        stage, repeats = _read(path, digest, writer, progress)
        writer.stage(stage)
        source, status = stage.source, "ingested"
    repeated = repeats if repeats.count else None
    return IngestedFile(
        path=str(path), records=source.records, kept=source.kept, sha256=digest, status=status, repeated=repeated
    )


def _read(path: Path, digest: str, writer: LakeWriter, progress: Progress | None) -> tuple[Stage, Repeats]:
    """Read and verify one file, keeping the bars of the universe."""
    kept, sessions, repeats = 0, set[int](), RepeatFinder()
    spool = writer.new_spool()
    with CotahistReader(path) as reader:
        waiting: list[Rows] = []
        for rows in reader.blocks():
            days = day_numbers(rows, FIELD["session"].start)
            starts = np.append(0, np.flatnonzero(days[1:] != days[:-1]) + 1)  # records come in runs of one session
            sessions.update(days[starts].tolist())
            chosen = np.flatnonzero(select_bars(rows, writer.universe))
            waiting.append(rows[chosen])
            lines = chosen + reader.records - len(rows) + 2
            _check_quote_factor(path, waiting[-1], lines)
            _check_ticker(path, waiting[-1], lines)
            repeats.add(waiting[-1], lines)
            kept += len(chosen)
            if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
                spool.add_bars(to_bars(np.concatenate(waiting), generated=reader.generated))
                waiting.clear()
            if progress is not None:
                progress(path, reader.progress)
        if kept:
            spool.add_bars(to_bars(np.concatenate(waiting), generated=reader.generated))
    dates = as_dates(np.array(sorted(sessions), dtype=np.int64)).tolist()
    source = SourceFile(
        name=path.name,
        sha256=digest,
        records=reader.records,
        kept=kept,
        generated=reader.generated,
        first_session=dates[0] if dates else None,
        last_session=dates[-1] if dates else None,
    )
    return Stage(source=source, sessions=dates, spool=spool), repeats.find()


def _check_quote_factor(path: Path, rows: Rows, lines: NDArray[np.int64]) -> None:
    """Refuse a quote factor of 0 in a bar: no price can be divided by it."""
    field = FIELD["quote_factor"]
    zero = (rows[:, field.start : field.end] == ord("0")).all(axis=1)
    if zero.any():
        refuse(path, int(lines[np.argmax(zero)]), f"field {field.title}", "at least 1", "0")


def _check_ticker(path: Path, rows: Rows, lines: NDArray[np.int64]) -> None:
    """Refuse a ticker in a bar that cannot name a folder, as each asset of a run has one: blank, '..' or 'A/B'."""
    field = FIELD["ticker"]
    characters = rows[:, field.start : field.end]
    bad = (characters == ord("/")).any(axis=1) | np.isin(characters[:, 0], [ord(" "), ord(".")])
    if bad.any():
        first = int(np.argmax(bad))
        got = printable(characters[first].tobytes())
        refuse(path, int(lines[first]), f"field {field.title}", "a ticker like PETR4", got)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _with_holdings(files: Sequence[IngestedFile], lake: Path, before: Holdings) -> list[IngestedFile]:
    """The files with what each holds in the lake now, and what it took from others."""
    num_bars, now, told = Lake(lake).num_bars_of_files(), Holdings.of(lake), []
    for file in files:
        taken = before.taken_by(file.sha256, now)
        gone = before.tickers_gone(taken, now) if taken else []
        told.append(replace(file, bars=num_bars[file.sha256], sessions_taken=len(taken), tickers_gone=gone))
    return told


def _describe(lake: Path) -> dict[str, Any]:
    """Size and extent of a lake."""
    opened = Lake(lake)
    tickers = opened.tickers()
    return {
        "bars": int(tickers["num_sessions"].sum()),
        "tickers": len(tickers),
        "first_session": tickers["first_session"].min().date() if len(tickers) else None,
        "last_session": tickers["last_session"].max().date() if len(tickers) else None,
        "classes": opened.manifest.classes,
        "universe": opened.manifest.universe,
    }
