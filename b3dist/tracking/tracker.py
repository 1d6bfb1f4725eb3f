"""The driver's side: what happens to a run, told to MLflow from one background thread.

What MLflow shows is a copy. The run's folder stays the truth, and a store that fails loses nothing trained.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from b3dist.errors import ConfigError
from b3dist.tracking import records
from b3dist.tracking.store import KIND_TAG, RUN_TAG, TICKER_TAG, Store, StoredRun, default_uri, without_password

Status = Literal["FINISHED", "FAILED", "KILLED"]

ARTIFACTS = ("metrics.json", "history.csv", "bundle.json", "model.pt")
"""The files of a bundle that MLflow keeps too."""

# Each number costs the driver 0.1 ms of CPU that training could use, and metrics.json is among the artifacts.
_LEFT_TO_THE_FILE = ("without_cash_ex_dates", "num_windows", "support")
_NOT_MEASURED = ("schema_version", "times", "invocation", "attempt")
_GIVE_UP_AFTER = 3  # failures in a row, until `finish` tries once more

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrackingResult:
    """What of a run is in MLflow; `not_logged` maps a ticker (or `summary`) to why it is missing."""

    uri: str
    run_id: str
    logged: int
    already_logged: int
    not_logged: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for summary.json."""
        return {**vars(self), "not_logged": dict(self.not_logged)}


class Tracker:
    """An open parent run, made by `Tracker.open`. Called from one thread; the writing happens in another.

    The background thread keeps sqlite's commits and a distant tracking server from holding up the leasing of assets.
    """

    def __init__(self, store: Store, *, uri: str, parent: StoredRun, children: dict[str, StoredRun]) -> None:
        self._store = store
        self._uri = uri
        self._parent = parent
        self._children = children
        self._logged: set[str] = set()
        self._already_logged: set[str] = set()
        self._missing: dict[str, tuple[Callable[[], None], str]] = {}
        self._failures_in_row = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")

    @classmethod
    def open(
        cls,
        uri: str | None,
        *,
        runs: Path,
        run_id: str,
        config: Mapping[str, Any],
        kind: str = "fleet",
        tags: Mapping[str, str] | None = None,
    ) -> Self:
        """Open the store (the default sqlite file is made if absent) and the parent run of `run_id`.

        Opening a run_id again finds its parent and children by tag, so a resumed run goes on where it was. Takes about
        four seconds, nearly all of them MLflow's imports and, once, the tables: call it while the workers start.

        Args:
            uri: tracking URI; None for `mlflow.db` beside `runs`.
            runs: folder of all runs; a local store keeps its artifacts in `mlartifacts` beside it.
            run_id: this system's run id, the parent's name.
            config: nested configuration; every leaf becomes a parameter of the parent.
            kind: what sort of run it is.
            tags: further tags of the parent.

        Raises:
            ConfigError: the store cannot be opened; better known before the training than after it.
        """
        chosen = uri or default_uri(runs)
        own = {RUN_TAG: run_id, KIND_TAG: kind}
        children: dict[str, StoredRun] = {}
        try:
            runs.resolve().parent.mkdir(parents=True, exist_ok=True)
            store = Store.open(chosen, artifacts=runs.resolve().parent / "mlartifacts")
            parent = store.find(own).get(run_id)
            if parent is None:
                parent = store.create(run_id, {**own, **(tags or {})})
            else:
                store.reopen(parent)
                children = store.find({"mlflow.parentRunId": parent.id})
            store.log(parent, params=records.parameters(config))
        except Exception as error:  # MLflow's, SQLAlchemy's and the network's errors share no base
            raise ConfigError(
                f"cannot open the tracking store {without_password(chosen)}: {_one_line(error)}",
                hint="check the tracking URI (mlflow.db beside the runs, unless told otherwise), or add --no-mlflow",
            ) from error
        return cls(store, uri=without_password(chosen), parent=parent, children=children)

    def log_asset(self, bundle: Path) -> None:
        """Log a committed asset folder as a finished child run: parameters, metrics, history, artifacts.

        Returns at once. An asset whose child is finished already is not logged again; one half-logged before the driver
        was killed, or failed in an earlier attempt, is completed.

        Args:
            bundle: the asset's folder, named by its ticker.
        """
        self._thread.submit(self._attempt, bundle.name, lambda: self._write_asset(bundle))

    def log_failure(self, ticker: str, error: str) -> None:
        """Log an asset that failed for good as a failed child run with its error as a tag. Returns at once."""
        self._thread.submit(self._attempt, ticker, lambda: self._write_failure(ticker, error))

    def log_trial(
        self,
        number: int,
        *,
        params: Mapping[str, float],
        metrics: Mapping[str, float],
        curve: Mapping[int, float],
        tags: Mapping[str, str],
        error: str | None = None,
    ) -> None:
        """Log a sweep's settled trial as a child run, failed if there is an error. Returns at once.

        Args:
            number: of the trial; its child is called `trial-007`, and one that has ended is not logged again.
            params: the values searched, by setting.
            metrics: final numbers.
            curve: macro F1 by epoch.
            tags: what else tells it from its siblings.
            error: why it has no score.
        """
        name = f"trial-{number:03}"
        values = [records.Value(key, value, 0) for key, value in metrics.items()]
        values += [records.Value("epoch.val_macro_f1", value, epoch) for epoch, value in sorted(curve.items())]
        said = {**tags, **({"b3dist.error": error[: records.MAX_TAG]} if error else {})}
        self._thread.submit(
            self._attempt, name, lambda: self._write_trial(name, records.parameters(params), values, said)
        )

    def finish(self, summary: Mapping[str, Any], status: Status = "FINISHED") -> TrackingResult:
        """Wait for what is being logged, try again what failed, log the summary, end the parent run.

        Never raises on the store's account: what it did not take is in the result and warned about.

        Args:
            summary: its numbers, and the medians of its assets' metrics, become the parent's metrics; the whole of it
                becomes the artifact summary.json.
            status: how the parent run ends.
        """
        self._thread.shutdown(wait=True)
        again, self._missing, self._failures_in_row = self._missing, {}, 0
        for name, (task, _) in again.items():
            self._attempt(name, task)
        self._attempt("summary", lambda: self._write_summary(summary, status))
        missing = {name: error for name, (_, error) in self._missing.items()}
        if missing:
            _log.warning("not in MLflow (%s): %s; the run's folder has it all", self._uri, ", ".join(missing))
        return TrackingResult(
            uri=self._uri,
            run_id=self._parent.id,
            logged=len(self._logged),
            already_logged=len(self._already_logged),
            not_logged=missing,
        )

    def _attempt(self, name: str, task: Callable[[], None]) -> None:
        if self._failures_in_row >= _GIVE_UP_AFTER:
            self._missing[name] = (task, f"not tried, as the store had failed {_GIVE_UP_AFTER} times in a row")
            return
        try:
            task()
        except Exception as error:  # noqa: BLE001  whatever the store does must not cost the trained fleet
            self._failures_in_row += 1
            self._missing[name] = (task, _one_line(error))
            _log.warning("MLflow did not take %s: %s", name, _one_line(error))
        else:
            self._failures_in_row = 0

    def _write_asset(self, bundle: Path) -> None:
        child = self._children.get(bundle.name)
        if child is not None and child.status == "FINISHED":
            self._already_logged.add(bundle.name)
            return
        child = self._running_child(bundle.name)
        facts = records.read_json(bundle / "bundle.json")
        metrics = records.read_json(bundle / "metrics.json")
        values = records.numbers(metrics, without=_LEFT_TO_THE_FILE) + records.history(bundle / "history.csv")
        # One fixed time per asset: what a killed driver had logged already is not doubled.
        time_ms = int((bundle / "metrics.json").stat().st_mtime * 1000)
        self._store.log(child, values, time_ms=time_ms, params=_own_parameters(facts))
        self._store.log_files(child, [bundle / name for name in ARTIFACTS])
        self._store.end(child, "FINISHED")
        self._logged.add(bundle.name)

    def _write_failure(self, ticker: str, error: str) -> None:
        child = self._children.get(ticker)
        if child is None or child.status != "FINISHED":
            child = self._running_child(ticker)
            self._store.log(child, tags={"b3dist.error": error[: records.MAX_TAG]})
            self._store.end(child, "FAILED")
            self._logged.add(ticker)

    def _write_trial(
        self, name: str, params: Mapping[str, str], values: list[records.Value], tags: Mapping[str, str]
    ) -> None:
        child = self._children.get(name)
        if child is not None and child.status in ("FINISHED", "FAILED"):
            self._already_logged.add(name)
            return
        if child is None:
            child = self._store.create(name, {"mlflow.parentRunId": self._parent.id, KIND_TAG: "trial"})
            self._children[name] = child
        self._store.log(child, values, time_ms=int(time.time() * 1000), params=params, tags=tags)
        self._store.end(child, "FAILED" if "b3dist.error" in tags else "FINISHED")
        self._logged.add(name)

    def _write_summary(self, summary: Mapping[str, Any], status: Status) -> None:
        values = records.numbers(summary, without=_NOT_MEASURED) + records.medians(summary.get("assets", []))
        self._store.log(self._parent, values, time_ms=int(time.time() * 1000))
        self._store.log_text(self._parent, json.dumps(summary, indent=2, default=str), "summary.json")
        self._store.end(self._parent, status)

    def _running_child(self, ticker: str) -> StoredRun:
        if ticker in self._children:
            self._store.reopen(self._children[ticker])
        else:
            tags = {"mlflow.parentRunId": self._parent.id, TICKER_TAG: ticker, KIND_TAG: "asset"}
            self._children[ticker] = self._store.create(ticker, tags)
        return self._children[ticker]


def _own_parameters(facts: Mapping[str, Any]) -> dict[str, str]:
    """What tells an asset's child from its siblings; the configuration they share is on the parent."""
    plain = {name: value for name, value in facts.items() if isinstance(value, str | int)}
    splits = {name: facts[name] for name in ("splits", "dropped_windows") if name in facts}
    return records.parameters({**plain, **splits})


def _one_line(error: Exception) -> str:
    text = next(iter(str(error).splitlines()), "")
    return without_password(f"{type(error).__name__}: {text}" if text else type(error).__name__)
