"""The tracking store: opening it, finding what is in it, putting artifacts beside it."""

import contextlib
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

from b3dist.tracking.records import Value

EXPERIMENT = "b3dist"
RUN_TAG, KIND_TAG, TICKER_TAG = "b3dist.run_id", "b3dist.kind", "b3dist.ticker"

_ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# MLflow's own defaults keep trying a dead server for minutes per call; a user's setting wins.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_MAX_BATCH = 1000  # metrics and parameters in one log_batch: MLflow's limit
_PAGE = 1000


@dataclass
class StoredRun:
    """A run in MLflow: its id there, its status, and where its artifacts go."""

    id: str
    status: str
    artifact_uri: str


class Store:
    """An open tracking store and the experiment in it. Used by one thread at a time."""

    def __init__(self, client: Any, experiment_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id

    @classmethod
    def open(cls, uri: str, *, artifacts: Path) -> Self:
        """Open the store, made first if it is a database without tables, and the experiment `b3dist`.

        Args:
            uri: tracking URI.
            artifacts: where a new experiment keeps its artifacts, unless a tracking server decides that.

        Raises:
            sqlite3.Error: a file that is no database, or that this process cannot write.
        """
        _require_writable(uri)
        client = connect(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return cls(client, experiment.experiment_id)
        served = urlsplit(uri).scheme in ("http", "https")
        location = None if served else artifacts.resolve().as_uri()
        return cls(client, client.create_experiment(EXPERIMENT, artifact_location=location))

    def find(self, tags: Mapping[str, str]) -> dict[str, StoredRun]:
        """The runs that carry all these tags, by name; of several with one name the newest."""
        condition = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found: dict[str, StoredRun] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id], condition, max_results=_PAGE, order_by=["start_time ASC"], page_token=token
            )
            for run in page:
                found[run.info.run_name] = StoredRun(run.info.run_id, run.info.status, run.info.artifact_uri)
            token = page.token
            if not token:
                return found

    def create(self, name: str, tags: Mapping[str, str]) -> StoredRun:
        """A new running run."""
        info = self._client.create_run(self._experiment_id, tags=dict(tags), run_name=name).info
        return StoredRun(info.run_id, info.status, info.artifact_uri)

    def reopen(self, run: StoredRun) -> None:
        """Set an ended run running again, so that it takes more."""
        if run.status != "RUNNING":
            self._client.update_run(run.id, status="RUNNING")
            run.status = "RUNNING"

    def end(self, run: StoredRun, status: str) -> None:
        """End a run."""
        self._client.set_terminated(run.id, status)
        run.status = status

    def log(
        self,
        run: StoredRun,
        values: Sequence[Value] = (),
        *,
        time_ms: int = 0,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Numbers, parameters and tags in as few commits as MLflow allows.

        Args:
            run: where to.
            values: what; logged again with the same `time_ms` they are not doubled.
            time_ms: when, in milliseconds since 1970.
            params: once logged, a parameter cannot change.
            tags: may change.
        """
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(name, value, time_ms, step) for name, value, step in values]
        room = _MAX_BATCH - len(params or {}) - len(tags or {})
        self._client.log_batch(
            run.id,
            metrics=metrics[:room],
            params=[Param(name, value) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )
        for start in range(room, len(metrics), _MAX_BATCH):
            self._client.log_batch(run.id, metrics=metrics[start : start + _MAX_BATCH])

    def log_text(self, run: StoredRun, text: str, name: str) -> None:
        """A text as an artifact."""
        self._client.log_text(run.id, text, name)

    def log_files(self, run: StoredRun, files: Sequence[Path]) -> None:
        """Files as artifacts: hard links where the store's artifacts lie in a local folder (no copy), else uploads."""
        location = urlsplit(run.artifact_uri)
        if location.scheme not in ("", "file"):
            for file in files:
                self._client.log_artifact(run.id, str(file))
            return
        folder = Path(url2pathname(location.path))
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            target = folder / file.name
            target.unlink(missing_ok=True)
            try:
                os.link(file, target)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(file, target)


def connect(uri: str) -> Any:
    """An MLflow client of a store, quiet, and patient for a minute at most."""
    os.environ.update(_ENVIRONMENT)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient  # two seconds, and only the driver needs it

    for noisy in ("mlflow", "alembic"):  # "Creating initial tables": nothing a user acts upon
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _require_writable(uri: str) -> None:
    """Ask SQLite itself: MLflow tries a file that cannot be opened for 105 s, and shows a traceback of a read-only one.

    Raises:
        sqlite3.Error: says why the file cannot be written.
    """
    file = uri.removeprefix("sqlite:///")
    if file == uri or "?" in file or not Path(file).parent.is_dir():  # MLflow makes the folder, or says why it cannot
        return
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("CREATE TABLE b3dist_probe (one)")  # of a read-only file SQLite complains no earlier
        database.execute("ROLLBACK")


def default_uri(runs: Path) -> str:
    """The sqlite store `mlflow.db` beside the folder of all runs."""
    return f"sqlite:///{runs.resolve().parent / 'mlflow.db'}"


def without_password(text: str) -> str:
    """The text with `user:password@` in any address shortened to `user:***@`."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", text)
