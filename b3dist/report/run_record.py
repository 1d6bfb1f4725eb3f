"""A run read back for its report: tolerant of what is missing, which it names, and of a run still going on."""

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from b3dist.distributed.ledger import Event, read_ledger
from b3dist.distributed.sweep.folder import KIND as SWEEP
from b3dist.errors import RunError, StorageError
from b3dist.run_folder import bundle_folders, is_driven
from b3dist.run_summary import FLEET, POOLED, read_summary

RunState = Literal["finished", "running", "interrupted"]
History = dict[str, list[float | None]]

_NOTE = "note.txt"


@dataclass(frozen=True, kw_only=True)
class AssetFiles:
    """What an asset's folder holds; `missing` names files that are absent or unreadable, and why."""

    ticker: str
    metrics: dict[str, Any] | None
    facts: dict[str, Any] | None
    """bundle.json."""
    history: History | None
    """Columns of history.csv; empty cells are None."""
    predictions: dict[str, npt.NDArray[Any]] | None
    """Columns of predictions.parquet, each (windows,)."""
    missing: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """An asset without a model, and why."""

    ticker: str
    state: Literal["skipped", "failed", "waiting"]
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as its folder tells it."""

    run_id: str
    path: Path
    state: RunState
    config: Mapping[str, Any]
    """config.json; empty where that is missing."""
    summary: Mapping[str, Any]
    """summary.json; empty where the run has not ended, and where the file is damaged."""
    trained: Sequence[str]
    """Tickers with a committed folder, in alphabetical order."""
    untrained: Sequence[Untrained]
    problems: Sequence[str] = field(default=())
    """What of the run itself is missing or damaged."""
    note: str = ""
    """What a reader must know before any number, from note.txt."""

    def assets(self) -> Iterator[AssetFiles]:
        """The trained assets' files, one at a time."""
        for ticker in self.trained:
            yield read_asset(self.path / "assets" / ticker)


def write_note(run: Path, text: str) -> None:
    """Keep in a run's folder what every report of it shall say on top.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        (run / _NOTE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {run / _NOTE}: {error.strerror}", hint="check the free space") from error


def read_run(runs: Path, run_id: str) -> RunRecord:
    """Read a run's folder.

    Raises:
        RunError: there is no such run.
    """
    known = sorted(entry.name for entry in runs.glob("[!.]*") if entry.is_dir())
    if run_id not in known:
        nearest = difflib.get_close_matches(run_id, known, n=1, cutoff=0.0)
        hint = f"did you mean {nearest[0]}?" if nearest else f"no runs in {runs}: name their folder with --runs"
        raise RunError(f"there is no run {run_id!r} in {runs}", hint=hint)
    path = runs / run_id
    problems: list[str] = []
    config = _object(path / "config.json", problems) or {}
    running = is_driven(path)
    summary = {} if running else _summary(path, config, problems)
    events = _events(path / "ledger.jsonl", problems)
    trained = [folder.name for folder in bundle_folders(path)]
    entries = [] if summary is None else summary.get("assets", [])
    untrained = _untrained(_listed(config, "tickers", str), set(trained), events, entries)
    if summary is None:  # damaged: the ledger says it too
        finished = bool(events) and all(one.state != "waiting" for one in untrained)
    else:
        finished = summary.get("state") == "finished"
    return RunRecord(
        run_id=run_id,
        path=path,
        state="running" if running else "finished" if finished else "interrupted",
        config=config,
        summary=summary or {},
        trained=trained,
        untrained=untrained,
        problems=problems,
        note=_note(path / _NOTE, problems),
    )


def read_asset(folder: Path, *, with_predictions: bool = True) -> AssetFiles:
    """Read an asset's folder, or a whole model's, noting what is missing."""
    missing: list[str] = []
    return AssetFiles(
        ticker=folder.name,
        metrics=_object(folder / "metrics.json", missing),
        facts=_object(folder / "bundle.json", missing),
        history=_history(folder / "history.csv", missing),
        predictions=_predictions(folder / "predictions.parquet", missing) if with_predictions else None,
        missing=missing,
    )


def _untrained(
    tickers: Sequence[str], trained: set[str], events: Sequence[Event], entries: Sequence[Mapping[str, Any]]
) -> list[Untrained]:
    """Assets of the run without a folder: the ledger's last word on each, the summary's where there is no ledger."""
    last: dict[str, Mapping[str, Any]] = {
        entry["ticker"]: {**entry, "event": entry["state"]} for entry in entries if not events
    }
    for event in events:
        if event["event"] == "opened":  # a new invocation tries failed assets again
            last = {ticker: entry for ticker, entry in last.items() if entry["event"] != "failed"}
        elif "ticker" in event:
            last[event["ticker"]] = event
    found = []
    for ticker in sorted({*tickers, *last} - trained):
        entry = last.get(ticker, {})
        word, reason = entry.get("event"), str(entry.get("error") or entry.get("reason") or entry.get("why") or "")
        if word == "failed":
            found.append(Untrained(ticker=ticker, state="failed", reason=reason or "no reason recorded"))
        elif word == "skipped":
            found.append(Untrained(ticker=ticker, state="skipped", reason=reason or "no reason recorded"))
        elif word == "trained":
            found.append(Untrained(ticker=ticker, state="failed", reason="recorded as trained, but its folder is gone"))
        else:
            phase = "in training" if word == "leased" else "not begun" if word is None else "to be tried again"
            found.append(Untrained(ticker=ticker, state="waiting", reason=phase + (f": {reason}" if reason else "")))
    return found


def _summary(path: Path, config: Mapping[str, Any], problems: list[str]) -> dict[str, Any] | None:
    """summary.json: empty where no driver has come to its end, None where it is damaged."""
    if config.get("kind") == SWEEP:
        return {}  # its page reads it by itself
    kind, shape = ("pooled", POOLED) if config.get("kind") == "pooled" else ("fleet", FLEET)
    try:
        return read_summary(path, kind, shape) or {}
    except RunError as error:
        problems.append(f"{error.message}; {error.hint}")
        return None


def _listed(content: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    """The list called `name`; what in a damaged file is no list, or no entry of that type, is left out."""
    entries = content.get(name, [])
    return [entry for entry in entries if isinstance(entry, kind)] if isinstance(entries, list) else []


def _object(path: Path, missing: list[str]) -> dict[str, Any] | None:
    try:
        # A number that is none (JSON knows no NaN, Python's reader does) counts as undefined.
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _word: None)
    except (OSError, ValueError) as error:
        missing.append(_absent(path, error))
        return None
    if not isinstance(content, dict):
        missing.append(f"{path.name} holds no JSON object")
        return None
    return content


def _history(path: Path, missing: list[str]) -> History | None:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) if row[name] else None for row in rows] for name in (rows[0] if rows else ())}
    except (OSError, ValueError, TypeError) as error:
        missing.append(_absent(path, error))
        return None


def _predictions(path: Path, missing: list[str]) -> dict[str, npt.NDArray[Any]] | None:
    try:
        # pq.read_table would import pandas, two seconds for nothing.
        with pq.ParquetFile(path) as file:
            table = file.read()
        return {name: np.asarray(table[name].to_numpy()) for name in table.column_names}
    except (OSError, pa.ArrowException) as error:
        missing.append(_absent(path, error))
        return None


def _events(path: Path, problems: list[str]) -> list[Event]:
    if not path.is_file():
        problems.append(f"{path.name} is missing")
        return []
    try:
        return read_ledger(path)
    except RunError as error:
        problems.append(error.message)
        return []


def _note(path: Path, problems: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        problems.append(_absent(path, error))
        return ""


def _absent(path: Path, error: Exception) -> str:
    return f"{path.name} is missing" if isinstance(error, FileNotFoundError) else f"{path.name} is unreadable: {error}"
