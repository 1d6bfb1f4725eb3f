"""A finished pooled run for tests, trained in this process without Ray."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.data.pooled import load_pooled
from b3dist.recipes import pooled
from b3dist.run_folder import RunFolder, RunSettings
from b3dist.training.bundle import library_versions
from b3dist.training.pooled import PooledFitting
from b3dist.training.pooled_bundle import MODEL_FOLDER, PooledWriter, judged, read_predictions

QUICK = ("training.epochs=2", "training.batch_size=128", "model.hidden_size=8")


def train_pooled_run(
    lake: Path, runs: Path, *, tickers: Sequence[str] | None = None, config: Config | None = None
) -> RunFolder:
    """What `b3dist pooled` leaves in a run's folder, but for ledger and summary."""
    opened = Lake(lake)
    config = config or pooled().with_overrides(QUICK)
    chosen = list(tickers) if tickers is not None else list(opened.tickers()["ticker"])
    settings = RunSettings(
        config=config,
        lake=lake.resolve(),
        lake_manifest_hash=opened.manifest_hash,
        tickers=chosen,
        created_at="2024-01-02T03:04:05+00:00",
        versions=library_versions(),
        kind="pooled",
    )
    run = RunFolder.create(runs, settings)
    data = load_pooled(opened, chosen, config.data)
    config = dataclasses.replace(config, data=data.config)
    fitting = PooledFitting(data, config)
    for _ in fitting.epochs():
        pass
    writer = PooledWriter(fitting, config, lake_manifest_hash=opened.manifest_hash)
    kept = [(number, asset) for number, asset in enumerate(data.assets) if judged(asset) is None]
    for number, _ in kept:
        writer.write_asset(number, run.assets)
    writer.write_model(run.path / MODEL_FOLDER, read_predictions(run.assets, [asset.ticker for _, asset in kept]))
    return run
