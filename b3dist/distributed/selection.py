"""Which assets a new run covers, in which order, under which settings; on which lake an old one goes on."""

import dataclasses
import difflib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from b3dist import __version__
from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.errors import ConfigError, LakeError
from b3dist.run_folder import RunFolder, RunSettings

_VERSIONED = ("ray", "torch", "numpy", "pandas", "pyarrow", "scikit-learn", "mlflow")


def new_run(
    lake: Lake,
    runs: Path,
    config: Config,
    *,
    tickers: Sequence[str] | None = None,
    kind: str = "fleet",
    options: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Make the folder of a new run over some or all assets of a lake.

    Args:
        lake: opened.
        runs: folder of all runs; made if absent.
        config: complete.
        tickers: some assets; None for all of the lake.
        kind: what sort of run it is.
        options: what else such a run must know to go on.

    Raises:
        ConfigError: a ticker is not in the lake.
        LakeError: the lake holds no assets.
        StorageError: `runs` cannot be written.
    """
    settings = RunSettings(
        config=config,
        lake=lake.path.resolve(),
        lake_manifest_hash=lake.manifest_hash,
        tickers=choose_tickers(lake, tickers),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            "python": platform.python_version(),
            "b3dist": __version__,  # not asked of the installation: on a cluster b3dist need not be installed
            **{name: importlib.metadata.version(name) for name in _VERSIONED},
        },
        kind=kind,
        options=options or {},
    )
    return RunFolder.create(runs, settings)


def reopen_lake(run: RunFolder, lake: Path | None, config: Config | None = None) -> Lake:
    """The lake that a run goes on with: the one it was begun on, which may have moved but not changed.

    Args:
        run: its settings name the lake from now on.
        lake: where the lake is now; None: where it was.
        config: what was asked for now; None: the run's own.

    Raises:
        ConfigError: the configuration or the lake's content is another.
        LakeError: there is no lake.
    """
    opened = Lake(lake or run.settings.lake)
    run.require_same(config=config or run.settings.config, lake_manifest_hash=opened.manifest_hash)
    run.settings = dataclasses.replace(run.settings, lake=opened.path.resolve())
    return opened


def choose_tickers(lake: Lake, wanted: Sequence[str] | None) -> list[str]:
    """The assets to train, longest history first: what runs last is short, so that the workers end together.

    Raises:
        ConfigError: a wanted ticker is not in the lake.
        LakeError: the lake holds no assets.
    """
    table = lake.tickers().sort_values(["num_sessions", "ticker"], ascending=[False, True])
    known = [str(ticker) for ticker in table["ticker"]]
    if not known:
        raise LakeError(f"the lake {lake.path} holds no assets", hint="fill it with b3dist ingest")
    if wanted is None:
        return known
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        nearest = [name for ticker in unknown for name in difflib.get_close_matches(ticker, known, n=1, cutoff=0.0)]
        raise ConfigError(
            f"not in the lake {lake.path}: {', '.join(unknown)}",
            hint=f"the nearest are {', '.join(dict.fromkeys(nearest))}",
        )
    if not wanted:
        raise ConfigError("no tickers given", hint="leave out --tickers to train every asset of the lake")
    return [ticker for ticker in known if ticker in set(wanted)]
