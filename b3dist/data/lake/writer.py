"""Changes a lake: one writer at a time, everything new beside the old, one rename at the end."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import IO, Final, Self

import pyarrow as pa

from b3dist.data.adjust import read_events
from b3dist.data.durable import flush_to_disk
from b3dist.data.lake.manifest import MANIFEST_NAME, Manifest, SourceFile, commit_manifest, read_manifest
from b3dist.data.lake.merge import History
from b3dist.data.lake.spool import Spool
from b3dist.data.lake.yearfiles import POSITIONS, positions_of, write_durably, write_year
from b3dist.data.renames import read_renames
from b3dist.errors import B3distError, LakeError, StorageError

_LOCK_NAME: Final = ".lock"
_STAGING: Final = ".staging"
_DEFAULT_UNIVERSE: Final = "shares"
_OWN_NAMES: Final = {_LOCK_NAME, _STAGING, f"{MANIFEST_NAME}.new", "bars", "index", "inputs"}
"""What a killed first ingest may leave in a folder that is no lake yet."""
_OURS: Final = ("bars/year=*/[0-9]*.parquet", "index/*-[0-9]*.parquet", "inputs/*-*.csv", f"{MANIFEST_NAME}.new")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A verified COTAHIST file on its way into the lake."""

    source: SourceFile
    sessions: Sequence[date]
    """All its sessions, also those without a bar of the universe."""
    spool: Spool
    """Its bars."""


class LakeWriter:
    """The right to change a lake; use as a context manager.

    New files get new names. Until `commit` renames the manifest into place the lake is as it was, and whatever a killed
    writer left is removed by the next one. On an error everything new is removed at once.

    Raises:
        LakeError: another writer holds the lake, it is damaged, or it was made for another universe.
        StorageError: the lake cannot be written.
    """

    def __init__(self, lake: Path, *, universe: str | None) -> None:
        self.path = lake
        self._wanted_universe = universe
        self._cleaning = contextlib.ExitStack()
        self._stages: list[Stage] = []
        self._inputs: dict[str, str] = {}
        self._num_spools = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo, _storage_errors(self.path):
            undo.callback(self._cleaning.close)
            self._refuse_foreign_folder()
            self._lock()
            self._manifest = self._open_manifest()
            self.universe = self._manifest.universe
            self._inputs = dict(self._manifest.inputs)
            self._known = {file.sha256: file for file in self._manifest.files}
            self._remove_strays()
            undo.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(OSError):
            self._remove_strays()
        self._cleaning.close()

    def _refuse_foreign_folder(self) -> None:
        """A mistyped --lake must not turn somebody's folder into one."""
        if not self.path.is_dir() or (self.path / MANIFEST_NAME).exists():
            return
        foreign = sorted({path.name for path in self.path.iterdir()} - _OWN_NAMES)
        if foreign:
            raise LakeError(
                f"{self.path} is no lake and holds other files ({', '.join(foreign[:3])})",
                hint="choose an empty or new folder for --lake",
            )

    def _lock(self) -> None:
        if not self.path.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            self._cleaning.callback(self._remove_if_empty)
        lock: IO[str] = self._cleaning.enter_context((self.path / _LOCK_NAME).open("a+"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise LakeError(
                f"another ingest (process {holder}) is writing to the lake {self.path}", hint="wait until it is done"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()

    def _remove_if_empty(self) -> None:
        """Take back a folder that this writer made and put nothing into."""
        if not (self.path / MANIFEST_NAME).exists():
            with contextlib.suppress(OSError):
                (self.path / _LOCK_NAME).unlink(missing_ok=True)
                for folder in ("bars", "index", "inputs"):
                    if (self.path / folder).exists():
                        (self.path / folder).rmdir()
                self.path.rmdir()

    def _open_manifest(self) -> Manifest:
        if not (self.path / MANIFEST_NAME).exists():
            return Manifest(universe=self._wanted_universe or _DEFAULT_UNIVERSE)
        manifest, _ = read_manifest(self.path)
        if self._wanted_universe not in (None, manifest.universe):
            raise LakeError(
                f"the lake {self.path} holds the universe {manifest.universe!r}, not {self._wanted_universe!r}",
                hint="leave --universe away, or choose another --lake",
            )
        return manifest

    def _remove_strays(self) -> None:
        """Remove what neither the lake's manifest names nor the one before it: a killed or failed writer left it."""
        shutil.rmtree(self.path / _STAGING, ignore_errors=True)
        keep = {*self._manifest.live, *self._manifest.previous}
        for pattern in _OURS:
            for path in self.path.glob(pattern):
                if str(path.relative_to(self.path)) not in keep:
                    path.unlink()
        for folder in self.path.glob("bars/year=*"):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

    def known(self, sha256: str) -> SourceFile | None:
        """The file with this content, if it was ingested before (in this command or an earlier one)."""
        return self._known.get(sha256)

    def remember_inputs(self, *, events_file: Path | None, renames_file: Path | None) -> None:
        """Copy the user's events and renames into the lake; those given before stay unless replaced.

        Raises:
            DataError: a file is unreadable or has a bad row.
        """
        for name, path, read in (("events", events_file, read_events), ("renames", renames_file, read_renames)):
            if path is None:
                continue
            read(path)
            with _storage_errors(self.path):
                content = path.read_bytes()
                copy = f"inputs/{name}-{hashlib.sha256(content).hexdigest()[:12]}.csv"
                if self._inputs.get(name) != copy:
                    (self.path / copy).parent.mkdir(exist_ok=True)
                    with (self.path / copy).open("wb") as stream:
                        stream.write(content)
                        stream.flush()
                        os.fsync(stream.fileno())
                    self._inputs[name] = copy

    def new_spool(self) -> Spool:
        """A place for the bars of a file that is being read."""
        self._num_spools += 1
        return Spool(self.path / _STAGING / str(self._num_spools))

    def stage(self, stage: Stage) -> None:
        """Take a file into the next commit."""
        self._stages.append(stage)
        self._known[stage.source.sha256] = stage.source

    def commit(self) -> bool:
        """Make all that was staged the lake's new content; False if there was nothing new.

        Raises:
            StorageError: a file cannot be written; the lake is unchanged.
        """
        if not self._stages and self._inputs == self._manifest.inputs and self._manifest.generation:
            return False
        with _storage_errors(self.path):
            manifest = self._write_generation(self._manifest.generation + 1)
        commit_manifest(self.path, manifest)
        self._manifest, self._stages = manifest, []
        return True

    def _write_generation(self, generation: int) -> Manifest:
        """Write all new files of a generation; nothing names them yet."""
        history = History(self.path, self._manifest, spool=Spool(self.path / _STAGING / "merged"))
        for stage in self._stages:
            history.owners.claim(stage.source, stage.sessions)
        history.merge([(stage.source, stage.spool) for stage in self._stages])
        history.adjust({name: self.path / file for name, file in self._inputs.items()})
        files, positions = self._write_years(history, generation)
        tables = {"positions": positions, "sessions": history.owners.to_table(), "events": history.events_table}
        index = {name: f"index/{name}-{generation:06d}.parquet" for name in tables}
        (self.path / "index").mkdir(exist_ok=True)
        for name, table in tables.items():
            write_durably(self.path / index[name], table)
        folders = {
            parent for file in (*files, *index.values(), *self._inputs.values()) for parent in Path(file).parents
        }
        for folder in folders:
            flush_to_disk(self.path / folder)
        manifest = replace(
            self._manifest,
            generation=generation,
            files=tuple(sorted(self._known.values(), key=lambda file: (file.generated, file.name, file.sha256))),
            parquet_files=tuple(files),
            index=index,
            inputs=self._inputs,
            classes=history.num_by_class,
        )
        return replace(manifest, previous=tuple(sorted(set(self._manifest.live) - set(manifest.live))))

    def _write_years(self, history: History, generation: int) -> tuple[list[str], pa.Table]:
        """Write the years that changed: all live bar files, and where each ticker's rows are in them."""
        files, positions = [], [POSITIONS.empty_table()]
        for year in history.years:
            file = history.unchanged_file(year)
            if file is not None:
                positions.append(history.positions_in(file))
            else:
                file, bars = f"bars/year={year:04d}/{generation:06d}.parquet", history.bars(year)
                write_year(self.path / file, bars)
                positions.append(positions_of(bars, file=file))
            files.append(file)
        return files, pa.concat_tables(positions)


@contextlib.contextmanager
def _storage_errors(lake: Path) -> Iterator[None]:
    """Name the lake in errors of the file system."""
    try:
        yield
    except B3distError:
        raise
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise StorageError(
            f"cannot write the lake {lake}:{where} {error.strerror or error}; the lake is unchanged",
            hint="check permissions and free space, then run the same command again",
        ) from error
