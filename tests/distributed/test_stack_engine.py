"""Packs of assets through the fleet: the files of one asset at a time, and the same rules when something fails."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from b3dist.config import Config
from b3dist.data.lake import Lake, ingest
from b3dist.distributed.cluster import connected
from b3dist.distributed.fleet import stack_engine
from b3dist.distributed.fleet.drive import drive_fleet
from b3dist.distributed.fleet.options import FleetOptions
from b3dist.distributed.fleet.stack_engine import StackEngine
from b3dist.distributed.selection import new_run
from b3dist.errors import InsufficientDataError
from b3dist.run_folder import RunFolder
from b3dist.training.asset import TrainedAsset, train_asset
from b3dist.training.bundle import FILES, read_bundle
from b3dist.training.fused import fit_stack
from b3dist.training.fused_data import StackMember
from tests.distributed.runs import QUICK, Meanwhile, events, start_run, wait_for

OUTPUTS = ["p_buy", "p_sell", "p_hold", "return_pred"]


def keys_of(nested: Any) -> Any:
    """A JSON object's keys, to the bottom."""
    return {key: keys_of(value) for key, value in nested.items()} if isinstance(nested, dict) else None


def assert_same_files(stack: Path, single: Path, *, atol: float) -> float:
    """Two bundles of an asset have the same files, keys and columns; outputs within atol.

    Returns:
        The share of windows with the same action.
    """
    assert sorted(path.name for path in stack.iterdir()) == sorted(FILES)
    for name in ("bundle.json", "metrics.json"):
        one, other = (json.loads((folder / name).read_text()) for folder in (stack, single))
        assert keys_of(one) == keys_of(other)
    facts, expected = read_bundle(stack).facts, read_bundle(single).facts
    assert (facts["engine"], expected["engine"]) == ("stack", "single")
    differing = {name for name in facts if facts[name] != expected[name]}
    assert differing <= {"engine", "model_sha256"}
    history, plain = (pd.read_csv(folder / "history.csv") for folder in (stack, single))
    assert list(history.columns) == list(plain.columns)
    assert list(history["learning_rate"]) == list(plain["learning_rate"])
    one, other = (pd.read_parquet(folder / "predictions.parquet") for folder in (stack, single))
    assert list(one.columns) == list(other.columns)
    pd.testing.assert_frame_equal(one.drop(columns=[*OUTPUTS, "action"]), other.drop(columns=[*OUTPUTS, "action"]))
    np.testing.assert_allclose(one[OUTPUTS], other[OUTPUTS], atol=atol, rtol=0)
    return float((one["action"] == other["action"]).mean())


def conclude(engine: StackEngine, tickers: Sequence[str]) -> dict[str, TrainedAsset | Exception]:
    """What came of each asset."""
    outcomes: dict[str, TrainedAsset | Exception] = {}
    for ticker, train in engine.train(tickers):
        try:
            outcomes[ticker] = train()
        except Exception as error:  # noqa: BLE001  looked at by the test
            outcomes[ticker] = error
    return outcomes


@pytest.fixture(scope="module")
def singles(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every asset of the small lake, one at a time."""
    folder = tmp_path_factory.mktemp("singles")
    lake = Lake(small_lake)
    for ticker in lake.tickers()["ticker"]:
        train_asset(lake, ticker, Config().with_overrides(QUICK), folder)
    return folder


def test_packs_write_what_single_trainings_write(small_lake: Path, singles: Path, tmp_path: Path) -> None:
    """Six assets in one pack: the same six files each, outputs within 1e-3, the same windows trained."""
    lake, config = Lake(small_lake), Config().with_overrides(QUICK)
    tickers = sorted(lake.tickers()["ticker"])
    outcomes = conclude(StackEngine(lake, config, tmp_path, device="cpu"), tickers)
    assert sorted(outcomes) == tickers
    for ticker, trained in outcomes.items():
        assert isinstance(trained, TrainedAsset)
        assert trained.windows_trained == 2 * trained.num_train_windows
        assert assert_same_files(tmp_path / ticker, singles / ticker, atol=1e-3) >= 0.99


def test_an_asset_that_cannot_be_trained_does_not_hold_up_its_pack(small_lake: Path, tmp_path: Path) -> None:
    """The shortest history is skipped by rule, with the reason; the rest of the pack is trained."""
    lake = Lake(small_lake)
    config = Config().with_overrides([*QUICK, "data.min_sessions=390"])
    lengths = lake.tickers().set_index("ticker")["num_sessions"]
    outcomes = conclude(StackEngine(lake, config, tmp_path, device="cpu"), sorted(lengths.index))
    short = {ticker for ticker, size in lengths.items() if size < 390}
    assert short
    assert {ticker for ticker, outcome in outcomes.items() if isinstance(outcome, InsufficientDataError)} == short
    assert {path.name for path in tmp_path.iterdir()} == set(lengths.index) - short


def test_memory_that_runs_out_makes_this_pack_and_the_next_ones_smaller(
    small_lake: Path, singles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two models fit, six assets are trained two by two, and from then on two are leased at once."""

    def starved(members: Sequence[StackMember], **options: Any) -> Any:
        if len(members) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fit_stack(members, **options)

    monkeypatch.setattr(stack_engine, "fit_stack", starved)
    lake, config = Lake(small_lake), Config().with_overrides(QUICK)
    engine = StackEngine(lake, config, tmp_path, device="cpu")
    outcomes = conclude(engine, sorted(lake.tickers()["ticker"]))
    assert engine.most == 2
    assert all(isinstance(outcome, TrainedAsset) for outcome in outcomes.values())
    for ticker in outcomes:
        assert_same_files(tmp_path / ticker, singles / ticker, atol=1e-3)


def test_an_unexpected_error_is_every_assets_own(
    small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks a pack is reported for each of its assets, so that the fleet can try them one by one."""

    def broken(members: Sequence[StackMember], **options: Any) -> Any:
        raise ZeroDivisionError("no luck")

    monkeypatch.setattr(stack_engine, "fit_stack", broken)
    lake = Lake(small_lake)
    outcomes = conclude(
        StackEngine(lake, Config().with_overrides(QUICK), tmp_path, device="cpu"), sorted(lake.tickers()["ticker"])
    )
    assert [type(outcome) for outcome in outcomes.values()] == [ZeroDivisionError] * 6


def test_auto_is_the_stack_on_gpus_only() -> None:
    """By default CPUs train one asset after another and GPUs packs; either can be asked for."""
    chosen = {
        (engine, gpus): FleetOptions(engine=engine, gpus_per_worker=gpus).stacks
        for engine in ("auto", "single", "stack")
        for gpus in (0.0, 1.0)
    }
    assert [key for key, stacks in chosen.items() if stacks] == [("auto", 1.0), ("stack", 0.0), ("stack", 1.0)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray cluster for the tests below."""
    with connected("local", num_cpus=2):
        yield


STACKED = FleetOptions(workers=2, tracking=False, engine="stack")


def kill_a_worker_of(run: RunFolder) -> None:
    """SIGKILL the first worker that has begun a whole pack."""

    def pack() -> int | None:
        held = Counter(event["pid"] for event in events(run, "leased"))
        return next((pid for pid, size in held.items() if size == 3), None)

    os.kill(wait_for(pack), signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.slow
def test_fleet_of_packs_survives_a_killed_worker(cluster: None, small_lake: Path, tmp_path: Path) -> None:
    """Two workers share six assets as packs of three; one is killed: its pack is charged and trained again, alone."""
    run = start_run(small_lake, tmp_path / "runs", *QUICK, "training.epochs=40", "training.patience=40")
    killer = Meanwhile(lambda: kill_a_worker_of(run))
    summary = drive_fleet(run, STACKED)
    killer.done()
    assert {entry["state"] for entry in summary["assets"]} == {"trained"}
    assert Counter(event["ticker"] for event in events(run, "trained")) == Counter(run.settings.tickers)
    charged = {event["ticker"] for event in events(run, "charged")}
    (dead,) = {(event["attempt"], event["rank"]) for event in events(run, "charged")}
    held = {event["ticker"] for event in events(run, "leased") if (event["attempt"], event["rank"]) == dead}
    assert len(charged) == 3
    assert charged == held
    assert charged <= {event["ticker"] for event in events(run, "requeued")}
    assert {json.loads((folder / "bundle.json").read_text())["engine"] for folder in run.assets.iterdir()} == {"stack"}
    again = drive_fleet(RunFolder.open(tmp_path / "runs", run.run_id), STACKED)
    assert (again["totals"]["trained"], again["totals"]["already_done"]) == (0, 6)


REAL = ("PETR4", "VALE3", "ITUB4", "BBDC4", "ABEV3", "OGXP3", "MMXM3", "GGBR4")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_eight_real_assets_come_out_the_same(cluster: None, shared_data: Path, tmp_path: Path) -> None:
    """After 3 epochs outputs agree within 1e-3; after full training within 1e-2, with 99 % of the actions and more."""
    ingest([shared_data / "cotahist"], tmp_path / "lake")
    for overrides, atol in ((["training.epochs=3"], 1e-3), ([], 1e-2)):
        runs = {}
        for engine in ("single", "stack"):
            config = Config().with_overrides(overrides)
            runs[engine] = new_run(Lake(tmp_path / "lake"), tmp_path / "runs", config, tickers=REAL)
            summary = drive_fleet(runs[engine], FleetOptions(workers=2, tracking=False, engine=engine))  # type: ignore[arg-type]
            assert summary["totals"]["trained"] == 8
        shares = [
            assert_same_files(runs["stack"].assets / ticker, runs["single"].assets / ticker, atol=atol)
            for ticker in REAL
        ]
        assert min(shares) >= 0.99
