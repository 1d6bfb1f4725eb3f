"""Make a release of a run: every asset's best weights, in one step or not at all."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from b3dist.data.exchange import b3_sessions
from b3dist.errors import ReleaseError
from b3dist.release.manifest import SCHEMA_VERSION, serialise_groups, stack_models
from b3dist.release.parts import AssetPart, last_test_session, part_of_bundle, part_of_release
from b3dist.release.released import PREDICTIONS, WEIGHTS, Release
from b3dist.release.store import ReleaseStore
from b3dist.run_folder import RunFolder, is_driven
from b3dist.training.bundle import library_versions


def create_release(store: ReleaseStore, run: RunFolder, *, carry_over: bool = True) -> Release:
    """Release the best weights of every asset that a run trained.

    What the release needs of the run is copied, so the run may be pruned afterwards.

    Args:
        store: where to.
        run: a run that nobody drives any more.
        carry_over: keep the champion's model of each asset that the run has no model of.

    Raises:
        ReleaseError: the run is still going on, or trained nothing.
        RunError: a bundle is incomplete or damaged.
        StorageError: disk full or not writable; nothing is left.
    """
    parts = collect_run(run)
    carried: list[AssetPart] = []
    aliases = store.aliases()
    if carry_over and "champion" in aliases:
        carried = collect_carried(store.open("champion"), parts)
    return store.open(write_release(store, run, [*parts, *carried]))


def collect_run(run: RunFolder) -> list[AssetPart]:
    """Every asset that a run trained, in alphabetical order, verified by hash.

    Raises:
        ReleaseError: the run is still going on, or trained nothing.
        RunError: a bundle is incomplete or damaged.
    """
    if is_driven(run.path):
        raise ReleaseError(f"run {run.run_id} is still going on", hint="wait until it has finished")
    folders = sorted(folder for folder in run.assets.glob("[!.]*") if folder.is_dir())
    if not folders:
        raise ReleaseError(
            f"run {run.run_id} trained no asset, so there is nothing to release",
            hint=f"b3dist runs status {run.run_id} --runs {run.path.parent} says why",
        )
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


def write_release(store: ReleaseStore, run: RunFolder, parts: Sequence[AssetPart]) -> str:
    """Commit the parts as one release and return its id."""
    ordered = sorted(parts, key=lambda part: part.ticker)
    groups, models, described = stack_models(ordered)
    newest = max(last_test_session(part) for part in ordered if not part.facts["carried_over"])
    files = {WEIGHTS: serialise_groups(groups), PREDICTIONS: _serialise_predictions(ordered)}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": run.run_id,
        "run_kind": run.settings.kind,
        "refit": any(part.facts["refit"] and not part.facts["carried_over"] for part in ordered),
        "lake_manifest_hash": run.settings.lake_manifest_hash,
        "newest_session": newest.isoformat(),
        "versions": library_versions(),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "groups": described,
        "assets": {
            part.ticker: {"newest_session": newest.isoformat(), **part.facts, **models[part.ticker]} for part in ordered
        },
        "not_covered": _not_covered(run, {part.ticker for part in ordered}),
    }
    return store.commit(manifest, files)


def _not_covered(run: RunFolder, covered: set[str]) -> list[dict[str, str]]:
    """Assets of the run without a model in the release, and why, as far as summary.json says."""
    entries: Mapping[str, Mapping[str, Any]] = {}
    try:
        summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
        entries = {entry["ticker"]: entry for entry in summary["assets"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # a killed driver leaves no summary; what it trained is in the bundles
    found = []
    for ticker in sorted(set(run.settings.tickers) - covered):
        entry = entries.get(ticker, {})
        reason = entry.get("error") or entry.get("reason") or ""
        found.append({"ticker": ticker, "state": str(entry.get("state", "unknown")), "reason": str(reason)})
    return found


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
