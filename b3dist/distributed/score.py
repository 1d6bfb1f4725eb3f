"""Bulk scoring on a cluster: a folder of parts, each written at once, so that a killed job goes on where it was.

OUT/plan.json              what is scored by what; a rerun must ask for the same
OUT/part-00000.parquet     some neighbouring tickers; its metadata say what was skipped
OUT/manifest.json          all parts with rows and sha256, once all are there

Nothing in any of them depends on when or where it was computed: an interrupted job ends with the same bytes.
"""

import contextlib
import fcntl
import functools
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from b3dist.data.lake import Lake
from b3dist.distributed.cluster import connected
from b3dist.errors import B3distError, ConfigError, LakeError, RunError, StorageError
from b3dist.release import Release, ReleaseStore
from b3dist.run_folder import replace_json
from b3dist.scoring.bulk import FACTS, Totals, score_day, score_span, write_scores
from b3dist.scoring.history import Span
from b3dist.scoring.models import ReleasedModels, Which
from b3dist.scoring.windows import Skipped

TICKERS_PER_PART: Final = 16
"""About 25,000 windows of seven years: seconds of work, so little is lost and all cores stay busy."""


@dataclass(frozen=True, kw_only=True)
class ScorePlan:
    """What is scored by what, in which parts."""

    release: Path
    release_id: str
    release_sha256: str
    lake: Path
    lake_manifest_hash: str
    span: Span | None
    """First and last session; None: one day."""
    as_of: date | None
    which: Which
    keep_stale: bool
    """Also assets that have not traded for too many sessions."""
    parts: tuple[tuple[str, ...], ...]
    """Tickers of each part."""

    def identity(self) -> dict[str, Any]:
        """plan.json: all that the numbers depend on, and not where release and lake lie."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("release", "lake")}
        return {"schema_version": 3, **json.loads(json.dumps(facts, default=str))}


def plan_scores(
    release: Release,
    lake: Lake,
    *,
    span: Span | None,
    as_of: date | None = None,
    tickers: list[str] | None = None,
    which: Which = "served",
    keep_stale: bool = True,
    tickers_per_part: int = TICKERS_PER_PART,
) -> ScorePlan:
    """Divide some assets (None: all) of a release into parts of neighbouring tickers.

    Raises:
        UnknownTickerError: the release has no such ticker.
    """
    wanted = ReleasedModels(release, which, tickers).of
    calendar = lake.calendar()
    if span is None and as_of is None and len(calendar):
        as_of = calendar[-1].astype(object)
    return ScorePlan(
        release=release.path.resolve(),
        release_id=release.release_id,
        release_sha256=release.manifest_sha256,
        lake=lake.path.resolve(),
        lake_manifest_hash=lake.manifest_hash,
        span=span,
        as_of=as_of,
        which=which,
        keep_stale=keep_stale,
        parts=tuple(itertools.batched(wanted, tickers_per_part)),
    )


def drive_scores(
    plan: ScorePlan,
    out: Path,
    *,
    address: str | None = None,
    debug: bool = False,
    on_progress: Callable[[Totals], None] | None = None,
) -> dict[str, Any]:
    """Compute the parts that a folder lacks, one Ray task each, then write its manifest, which is returned.

    Raises:
        ConfigError: the folder holds scores of something else.
        RunError: another job is writing into it, or Ray cannot be reached.
        StorageError: disk full or not writable.
    """
    with _locked(out):
        _agree(plan, out)
        for leftover in out.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        missing = [number for number in range(len(plan.parts)) if not part_path(out, number).exists()]
        totals = Totals()
        for number in sorted(set(range(len(plan.parts))) - set(missing)):
            _count(totals, part_path(out, number), on_progress)
        if missing:
            with connected(address, num_cpus=len(os.sched_getaffinity(0)), debug=debug) as ray:
                task = ray.remote(num_cpus=1)(write_part)
                under_way = {task.remote(plan, out.resolve(), number): number for number in missing}
                while under_way:
                    (done,), _ = ray.wait(list(under_way), num_returns=1)
                    _raise_own(ray, done)
                    _count(totals, part_path(out, under_way.pop(done)), on_progress)
        return _write_manifest(plan, out)


def write_part(plan: ScorePlan, out: Path, number: int) -> None:
    """Score one part and rename it into place; what every task does.

    Raises:
        LakeError: the lake is not the one that was planned with.
        StorageError: disk full or not writable.
    """
    release, lake = _open(plan.release, plan.release_sha256, plan.lake, plan.lake_manifest_hash)
    tickers = plan.parts[number]
    if plan.span is None:
        scored = score_day(
            release, lake, as_of=plan.as_of, tickers=tickers, which=plan.which, keep_stale=plan.keep_stale
        )
    else:
        scored = score_span(release, lake, plan.span, tickers=tickers, which=plan.which, threads=1)
    write_scores(part_path(out, number), scored)


def part_path(out: Path, number: int) -> Path:
    """Where a part lies once it is complete."""
    return out / f"part-{number:05}.parquet"


@functools.lru_cache(maxsize=1)
def _open(release: Path, release_sha256: str, lake: Path, lake_manifest_hash: str) -> tuple[Release, Lake]:
    """Release and lake, once per worker process."""
    opened = Lake(lake)
    if opened.manifest_hash != lake_manifest_hash:
        raise LakeError(
            f"the lake {lake} has changed: its manifest is {opened.manifest_hash}, planned was {lake_manifest_hash}",
            hint="start again with another --out",
        )
    found = ReleaseStore(release.parent).open(release.name)
    if found.manifest_sha256 != release_sha256:
        raise RunError(f"{release} is not the release that was planned with", hint="start again with another --out")
    return found, opened


def _agree(plan: ScorePlan, out: Path) -> None:
    """Write plan.json, or compare it with the one that is there."""
    path, wanted = out / "plan.json", plan.identity()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        replace_json(path, wanted)
        return
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}", hint="name another --out") from error
    different = sorted(name for name in wanted if found.get(name) != wanted[name])
    if different:
        raise ConfigError(
            f"{out} holds scores of something else: {', '.join(different)} differ"
            f" (release {found.get('release_id')}, lake {str(found.get('lake_manifest_hash'))[:12]})",
            hint="name another --out, or ask for the same to go on",
        )


def _count(totals: Totals, path: Path, on_progress: Callable[[Totals], None] | None) -> None:
    facts = _facts(path)
    totals.rows += facts["rows"]
    totals.assets += facts["assets"]
    totals.stale += facts["stale"]
    totals.in_sample += facts["in_sample"]
    totals.skipped += [Skipped(**entry) for entry in facts["skipped"]]
    totals.left_out += Counter(facts["left_out"])
    if on_progress is not None:
        on_progress(totals)


def _facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[FACTS])
    return facts


def _write_manifest(plan: ScorePlan, out: Path) -> dict[str, Any]:
    parts, totals = [], Totals()
    for number, tickers in enumerate(plan.parts):
        path = part_path(out, number)
        _count(totals, path, None)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        parts.append({"file": path.name, "sha256": digest, "rows": _facts(path)["rows"], "tickers": list(tickers)})
    manifest = {**plan.identity(), "rows": totals.rows, **totals.describe(), "parts": parts}
    replace_json(out / "manifest.json", manifest)
    return manifest


def _raise_own(ray: Any, done: Any) -> None:
    """Raise what a task raised, as itself where it is meant for the user."""
    try:
        ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, B3distError):
            raise error.cause from error
        raise


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other drivers out of a folder; the lock ends with the process."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"cannot write into {out}: {error.strerror}", hint="check its permissions") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RunError(f"another job is writing into {out}", hint="wait for it, or name another --out") from error
    finally:
        os.close(descriptor)
