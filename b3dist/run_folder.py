"""RUNS/<run_id>/: what a run is, which process drives it, and how it ended.

config.json     what was asked for; only `replace_options` changes it
ledger.jsonl    what happened, as it happens
summary.json    totals and one entry per asset, each time a driver ends
driver.lock     held by the driver as long as it lives
assets/TICKER/  one bundle per trained asset
"""

import contextlib
import dataclasses
import difflib
import fcntl
import json
import os
import secrets
import shlex
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from b3dist import __version__
from b3dist.config import Config
from b3dist.data.durable import flush_to_disk
from b3dist.errors import ConfigError, RunError, StorageError, describe_damage

SCHEMA_VERSION = 1

RunState = Literal["running", "finished", "interrupted", "damaged"]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """config.json: what decides a run's numbers, and what it covers."""

    config: Config
    lake: Path
    lake_manifest_hash: str
    tickers: Sequence[str]
    """In the order of work."""
    created_at: str
    versions: Mapping[str, str]
    kind: str = "fleet"
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else runs of this kind must know to go on."""

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds, besides the run's id."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "created_at": self.created_at,
            "config": self.config.to_dict(),
            "lake": str(self.lake),
            "lake_manifest_hash": self.lake_manifest_hash,
            "tickers": list(self.tickers),
            "versions": dict(self.versions),
            "options": dict(self.options),
        }


class RunFolder:
    """The folder of one run; made by `create` or `open`."""

    def __init__(self, path: Path, settings: RunSettings) -> None:
        self.path = path
        self.settings = settings
        self._kept_lake = settings.lake

    @property
    def run_id(self) -> str:
        """The folder's name: time of creation, then a random suffix, so that names sort by age."""
        return self.path.name

    @property
    def assets(self) -> Path:
        """Where bundles are committed."""
        return self.path / "assets"

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.path / "ledger.jsonl"

    def how_to_resume(self, given: Mapping[str, object] | None = None) -> str:
        """The command that goes on with the run, for hints: as `resume_command`, and with its lake where that moved."""
        moved = self.settings.lake != self._kept_lake
        lake = {"--lake": self.settings.lake} if moved else {}
        return resume_command(self.path, self.settings.kind, given={**lake, **(given or {})})

    @classmethod
    def create(cls, runs: Path, settings: RunSettings) -> "RunFolder":
        """Make the folder of a new run.

        Raises:
            StorageError: the folder of all runs cannot be written.
        """
        run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        path = runs.resolve() / run_id
        try:
            (path / "assets").mkdir(parents=True)
            replace_json(path / "config.json", {"run_id": run_id, **settings.to_dict()})
        except OSError as error:
            raise StorageError(
                f"cannot make a run in {runs}: {error.strerror}",
                hint="choose another folder with --runs, or free space",
            ) from error
        return cls(path, settings)

    @classmethod
    def open(cls, runs: Path, run_id: str) -> "RunFolder":
        """The folder of an existing run.

        Raises:
            RunError: no such run, or its config.json is damaged or of another version.
        """
        path = runs.resolve() / run_id
        content = read_run_config(path)
        if content is None:
            known = sorted(entry.name for entry in runs.glob("*/") if (entry / "config.json").is_file())
            nearest = difflib.get_close_matches(run_id, known, n=1, cutoff=0.0)
            hint = f"the nearest is {nearest[0]}" if nearest else f"there are no runs in {runs}"
            raise RunError(f"there is no run {run_id!r} in {runs}", hint=hint)
        if content["schema_version"] != SCHEMA_VERSION:
            raise RunError(
                f"run {run_id} has schema version {content['schema_version']}, expected {SCHEMA_VERSION}",
                hint="use the version of b3dist that made it, or start a new run",
            )
        try:
            return cls(path, _settings_of(content))
        except (KeyError, TypeError, AttributeError, ValueError, ConfigError) as error:
            raise RunError(
                f"{path / 'config.json'} is damaged: {describe_damage(error)}",
                hint=f"a newer b3dist than {__version__} may have written it; else restore it, or start a new run",
            ) from error

    def require_same(self, *, config: Config, lake_manifest_hash: str) -> None:
        """Refuse to go on with other settings or other data than the run was started with.

        Raises:
            ConfigError: names what differs.
        """
        remedy = f"start a new run, or resume {self.run_id} without changing anything"
        before, now = _flat(self.settings.config.to_dict()), _flat(config.to_dict())
        changed = [f"{name} was {before[name]!r}, is {now[name]!r}" for name in before if before[name] != now[name]]
        if changed:
            raise ConfigError(
                f"run {self.run_id} was started with another configuration: {'; '.join(changed)}", hint=remedy
            )
        if self.settings.lake_manifest_hash != lake_manifest_hash:
            raise ConfigError(
                f"the lake has changed since run {self.run_id} was started: its manifest's sha256 was "
                f"{self.settings.lake_manifest_hash[:12]}, is {lake_manifest_hash[:12]}",
                hint="start a new run: assets trained on different data do not belong in one",
            )

    def replace_options(self, options: Mapping[str, Any]) -> "RunFolder":
        """The same run with other options, in config.json too; for its driver, by rules of the run's kind.

        Raises:
            StorageError: disk full or not writable; config.json is as it was.
        """
        settings = dataclasses.replace(self.settings, options=options)
        try:
            replace_json(self.path / "config.json", {"run_id": self.run_id, **settings.to_dict()})
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path / 'config.json'}: {error.strerror}", hint="free some space"
            ) from error
        return RunFolder(self.path, settings)

    @contextlib.contextmanager
    def driven(self) -> Iterator[None]:
        """Hold the run's lock; it goes with the process, however that dies.

        Raises:
            RunError: another driver holds it.
            StorageError: the folder cannot be written.
        """
        try:
            descriptor = os.open(self.path / "driver.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(f"cannot write into {self.path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                raise RunError(
                    f"run {self.run_id} is being driven by {holder}", hint="wait for it, or interrupt it first"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def remove_leftovers(self) -> None:
        """Delete what killed workers wrote aside and never renamed; only while no worker lives."""
        for leftover in self.assets.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace summary.json.

        Raises:
            StorageError: disk full or not writable; the old summary, if any, is still there.
        """
        try:
            replace_json(self.path / "summary.json", summary)
        except OSError as error:
            raise StorageError(f"cannot write {self.path / 'summary.json'}: {error.strerror}") from error


def releases_beside(runs: Path) -> Path:
    """Where the releases of a folder of runs lie unless another folder is named."""
    return runs.resolve().parent / "releases"


def bundle_folders(path: Path) -> list[Path]:
    """The bundles that a run has committed, in alphabetical order of their assets; not what is being written aside."""
    return sorted(folder for folder in (path / "assets").glob("[!.]*") if folder.is_dir())


def resume_command(path: Path, kind: str, *, given: Mapping[str, object] | None = None) -> str:
    """The whole command that goes on with a run, from whatever folder it is called.

    Args:
        path: the run's folder.
        kind: the run's kind, which is the verb.
        given: by option, what must be said again since a run does not keep it; None or False: nothing, True: a switch.
    """
    words = ["b3dist", kind, "--resume", path.name, "--runs", str(path.parent.resolve())]
    for option, value in (given or {}).items():
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            words += [option, str(value)]
    return shlex.join(words)


def advise_on_models(path: Path, kind: str) -> str:
    """What to do where a run's models were asked for and it has none."""
    if kind != "sweep":
        return shlex.join(["b3dist", "runs", "status", path.name, "--runs", str(path.parent)]) + " says why"
    recipe = shlex.join(["b3dist", "fleet", "--recipe-file", str(path / "best.yaml")])
    when = "" if (path / "best.yaml").is_file() else " once the sweep has finished"
    return f"a sweep keeps no models; train what it found with {recipe}{when}"


def read_run_config(path: Path) -> dict[str, Any] | None:
    """A run's config.json, or None if the folder is no run.

    Raises:
        RunError: it is there but not what it must be.
    """
    try:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not {"schema_version", "kind", "created_at"} <= content.keys():
            raise ValueError("it lacks schema_version, kind or created_at")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path / 'config.json'} is damaged: {error}") from error
    return content


def _settings_of(content: Mapping[str, Any]) -> RunSettings:
    tickers, options = content["tickers"], content.get("options", {})
    if not (isinstance(tickers, list) and all(isinstance(ticker, str) for ticker in tickers)):
        raise TypeError(f"tickers must be a list of names, got {tickers!r:.100}")
    if not isinstance(options, Mapping):
        raise TypeError(f"options must be an object, got {options!r:.100}")
    return RunSettings(
        config=Config.from_dict(content["config"]),
        lake=Path(content["lake"]),
        lake_manifest_hash=content["lake_manifest_hash"],
        tickers=tickers,
        created_at=content["created_at"],
        versions=content["versions"],
        kind=content["kind"],
        options=options,
    )


def is_driven(path: Path) -> bool:
    """Whether a living driver holds the lock of a run's folder."""
    try:
        descriptor = os.open(path / "driver.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def replace_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON aside and rename it into place; on return both are on the disk."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False, default=str)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        flush_to_disk(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
