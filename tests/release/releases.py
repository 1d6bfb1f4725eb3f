"""Runs and releases for tests: real bundles of a tiny simulated lake, trained here in a second, without Ray."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.fleet.initial import INIT_FROM, InitialSource, open_source
from b3dist.recipes import smoke
from b3dist.release import Release, ReleaseStore, create_release
from b3dist.run_folder import RunFolder, RunSettings
from b3dist.training.asset import train_asset
from b3dist.training.bundle import library_versions

TINY = ("model.hidden_size=8",)
"""A tenth of the arithmetic of the card's model."""


def train_run(
    lake: Path,
    runs: Path,
    *,
    tickers: Sequence[str] | None = None,
    config: Config | None = None,
    failed: Sequence[str] = (),
    start: InitialSource | None = None,
) -> RunFolder:
    """A finished run over some assets of a lake (default: all), trained in this process.

    Args:
        lake: its folder.
        runs: folder of all runs.
        tickers: which assets.
        config: default: recipe smoke with 8 units.
        failed: further assets of the run, without a bundle.
        start: what every asset's training begins with.
    """
    opened = Lake(lake)
    config = config or smoke().with_overrides(TINY)
    chosen = list(tickers) if tickers is not None else list(opened.tickers()["ticker"])
    settings = RunSettings(
        config=config,
        lake=lake.resolve(),
        lake_manifest_hash=opened.manifest_hash,
        tickers=[*chosen, *failed],
        created_at="2024-01-02T03:04:05+00:00",
        versions=library_versions(),
        options={INIT_FROM: start.to_option()} if start is not None else {},
    )
    models = open_source(start) if start is not None else None
    run = RunFolder.create(runs, settings)
    for ticker in chosen:
        train_asset(opened, ticker, config, run.assets, initial_models=models)
    states = [{"ticker": ticker, "state": "trained", "reason": None, "error": None} for ticker in chosen]
    states += [{"ticker": name, "state": "failed", "reason": None, "error": "it diverged"} for name in failed]
    run.write_summary({"schema_version": 1, "run_id": run.run_id, "state": "finished", "assets": states})
    return run


def make_release(
    lake: Path, folder: Path, *, tickers: Sequence[str] | None = None, config: Config | None = None
) -> Release:
    """A plain release of a new run: folder/runs, folder/releases."""
    run = train_run(lake, folder / "runs", tickers=tickers, config=config)
    return create_release(ReleaseStore(folder / "releases"), run)


def seeded(seed: int, *overrides: str) -> Config:
    """The quick configuration with another seed, so that other weights come out."""
    return dataclasses.replace(smoke().with_overrides([*TINY, *overrides]), seed=seed)
