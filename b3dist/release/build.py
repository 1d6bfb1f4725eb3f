"""Make a release of a run: every asset's best weights, in one step or not at all."""

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from b3dist.data.exchange import b3_sessions
from b3dist.errors import ReleaseError
from b3dist.release.card import render_card
from b3dist.release.ladder import check_fallback, naive_parts, pooled_parts
from b3dist.release.manifest import serialise_groups, stack_models
from b3dist.release.parts import AssetPart, last_test_session, part_of_bundle, part_of_release
from b3dist.release.refit import Progress, refit_parts
from b3dist.release.released import Release, Source
from b3dist.release.seal import CARD, PREDICTIONS, SCHEMA_VERSION, WEIGHTS
from b3dist.release.store import ReleaseStore
from b3dist.run_folder import RunFolder, advise_on_models, bundle_folders, is_driven
from b3dist.run_summary import FLEET, read_summary
from b3dist.training.bundle import library_versions
from b3dist.training.warm_start import InitialModels


@dataclass(frozen=True, kw_only=True)
class Refitting:
    """That a release is to serve weights trained on all rows, and how to train them."""

    lake: Path | None = None
    """None: the run's own."""
    workers: int | None = None
    """Processes; None: one per core."""
    initial_models: InitialModels | None = None
    """Where a warm-started run's assets began."""
    on_progress: Progress = lambda _done, _total: None


def create_release(
    store: ReleaseStore,
    run: RunFolder,
    *,
    refit: Refitting | None = None,
    carry_over: bool = True,
    fallback: RunFolder | None = None,
) -> Release:
    """Release the best weights of every asset that a run trained.

    What the release needs of the run is copied, so the run may be pruned afterwards.

    Args:
        store: where to.
        run: a run that nobody drives any more.
        refit: serve weights trained on all rows; None: the evaluated ones.
        carry_over: keep the champion's model of each asset that the run has no model of.
        fallback: a pooled run for the assets without a model of their own; those it does not know either are covered
            by the naive forecast.

    Raises:
        ReleaseError: the run is still going on or trained nothing, nothing could be refitted, a pooled model should be,
            or `fallback` is no finished pooled run that answers the same question.
        RunError: a bundle is incomplete or damaged.
        LakeError: the lake to refit on is not there.
        StorageError: disk full or not writable; nothing is left.
    """
    parts = collect_run(run)
    if fallback is not None:
        check_fallback(fallback, parts)
    if refit is not None and run.settings.kind == "pooled":
        raise ReleaseError(
            f"run {run.run_id} is of a pooled model, which cannot be refitted one asset at a time",
            hint="leave out --refit: a release of it serves the evaluated weights",
        )
    carried: list[AssetPart] = []
    if carry_over and "champion" in store.aliases():
        carried = collect_carried(store.open("champion"), parts)
    refitted: dict[str, Any] = {"refit": False, "refit_lake_manifest_hash": None, "refit_failed": {}}
    if refit is not None:
        result = refit_parts(
            parts,
            refit.lake or run.settings.lake,
            workers=refit.workers,
            initial_models=refit.initial_models,
            on_progress=refit.on_progress,
        )
        parts = result.parts
        trained_again = any(part.facts["refit"] for part in parts)
        refitted = {
            "refit": trained_again,
            "refit_lake_manifest_hash": result.lake_manifest_hash if trained_again else None,
            "refit_failed": dict(result.failed),
        }
    covered = [*parts, *carried]
    if fallback is not None:
        covered = descend_ladder(run, fallback, parts, carried)
    return store.open(write_release(store, run, covered, refitted))


def descend_ladder(
    run: RunFolder, fallback: RunFolder, parts: Sequence[AssetPart], carried: Sequence[AssetPart]
) -> list[AssetPart]:
    """Parts for every asset that either run was asked for: own, carried over, pooled, carried fallbacks, naive."""
    covered = {part.ticker: part for part in parts}
    covered |= {part.ticker: part for part in carried if part.facts["source"] == "own"}
    covered |= {part.ticker: part for part in pooled_parts(fallback, covered)}
    covered |= {
        part.ticker: part for part in carried if part.ticker not in covered and part.facts["source"] == "pooled"
    }
    left = {*run.settings.tickers, *fallback.settings.tickers} - covered.keys()
    newest = max(last_test_session(part) for part in parts)
    naive = naive_parts(left, like=parts, run_id=run.run_id, newest=newest)
    return [*covered.values(), *naive]


def collect_run(run: RunFolder) -> list[AssetPart]:
    """Every asset that a run trained, in alphabetical order, verified by hash.

    Raises:
        ReleaseError: the run is still going on, or trained nothing.
        RunError: a bundle is incomplete or damaged, or summary.json is damaged.
    """
    if is_driven(run.path):
        raise ReleaseError(f"run {run.run_id} is still going on", hint="wait until it has finished")
    folders = bundle_folders(run.path)
    if not folders:
        raise ReleaseError(
            f"run {run.run_id} trained no asset, so there is nothing to release",
            hint=advise_on_models(run.path, run.settings.kind),
        )
    _summary(run)  # before minutes are spent on a release that could not say why assets are missing
    return [part_of_bundle(folder, run_id=run.run_id) for folder in folders]


def collect_carried(champion: Release, parts: Sequence[AssetPart]) -> list[AssetPart]:
    """The champion's assets that are not among the parts, with the age of their model in exchange sessions.

    The age counts the sessions from the newest one their run saw to the newest one this run saw.
    """
    present = {part.ticker for part in parts}
    newest = max(last_test_session(part) for part in parts)
    carried = []
    for ticker, asset in champion.assets.items():
        if ticker not in present:
            seen = date.fromisoformat(asset.facts["newest_session"])
            carried.append(part_of_release(champion, ticker, age_sessions=_sessions_between(seen, newest)))
    return carried


def write_release(store: ReleaseStore, run: RunFolder, parts: Sequence[AssetPart], refitted: Mapping[str, Any]) -> str:
    """Commit the parts as one release and return its id."""
    ordered = sorted(parts, key=lambda part: part.ticker)
    groups, models, described = stack_models(ordered)
    judged = [part for part in ordered if not part.facts["carried_over"] and part.facts["source"] != "naive"]
    newest = max(last_test_session(part) for part in judged).isoformat()
    release_id = store.new_id()
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "release_id": release_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": run.run_id,
        "run_kind": run.settings.kind,
        "note": _note(run),
        **refitted,
        "lake_manifest_hash": run.settings.lake_manifest_hash,
        "newest_session": newest,
        "versions": library_versions(),
        "groups": described,
        "assets": {part.ticker: {"newest_session": newest, **part.facts, **models[part.ticker]} for part in ordered},
        "ladder": {name: sum(part.facts["source"] == name for part in ordered) for name in get_args(Source)},
        "not_covered": why_untrained(run, set(run.settings.tickers) - {part.ticker for part in ordered}),
    }
    files = {
        WEIGHTS: serialise_groups(groups),
        PREDICTIONS: _serialise_predictions(ordered),
        CARD: render_card(release_id, manifest).encode(),
    }
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    store.commit(release_id, {**manifest, "files": hashes}, files)
    return release_id


def _note(run: RunFolder) -> str:
    """What a reader must know before any number of the run, such as that its market is simulated."""
    try:
        return (run.path / "note.txt").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def why_untrained(run: RunFolder, tickers: Collection[str]) -> list[dict[str, str]]:
    """Ticker, state and reason of assets that a run has no model of, as far as its summary.json says.

    The state is that in the run (failed, skipped, ...), "not in the run" for an asset it was never asked for.

    Raises:
        RunError: summary.json is damaged.
    """
    summary = _summary(run) or {}  # a killed driver leaves none; what it trained is in the bundles
    entries: Mapping[str, Mapping[str, Any]] = {entry["ticker"]: entry for entry in summary.get("assets", ())}
    found = []
    for ticker in sorted(tickers):
        entry = entries.get(ticker, {} if ticker in run.settings.tickers else {"state": "not in the run"})
        reason = entry.get("error") or entry.get("reason") or ""
        found.append({"ticker": ticker, "state": str(entry.get("state", "unknown")), "reason": str(reason)})
    return found


def _summary(run: RunFolder) -> dict[str, Any] | None:
    return read_summary(run.path, run.settings.kind, FLEET)


def _serialise_predictions(parts: Sequence[AssetPart]) -> bytes:
    tables = []
    for part in parts:
        ticker = pa.array([part.ticker] * part.predictions.num_rows, type=pa.string())
        tables.append(part.predictions.add_column(0, "ticker", ticker))
    serialised = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), serialised, compression="zstd", row_group_size=1 << 16)
    return serialised.getvalue()


def _sessions_between(earlier: date, later: date) -> int:
    """Exchange sessions after `earlier` up to and including `later`."""
    return int((b3_sessions(np.datetime64(earlier), np.datetime64(later)) > np.datetime64(earlier)).sum())
