"""The one data builder of the suite: a seeded random-walk asset, and the real data beside the repository."""

import os
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

Columns = dict[str, np.ndarray]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that: here they are to be
    # interrupted as from a terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, however slow the machine: a suite that decides whether work is accepted draws no lots.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

_EXIT_STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep what the suite came to."""
    session.config.stash[_EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process once all is told: after a dozen clusters Ray's threads can crash the interpreter's own end."""
    if "ray" in sys.modules and _EXIT_STATUS in config.stash:
        config.get_terminal_writer().flush()
        sys.stderr.flush()
        os._exit(config.stash[_EXIT_STATUS])


def make_columns(rows: int = 400, *, seed: int = 0, start: str = "2015-01-02") -> Columns:
    """Bars of one asset as the lake's columns, each (rows,): a random walk around 20 BRL on consecutive weekdays."""
    rng = np.random.default_rng(seed)
    close = np.round(20.0 * np.exp(np.cumsum(rng.normal(0, 0.02, rows))), 2)
    opening = np.round(close * np.exp(rng.normal(0, 0.008, rows)), 2)
    spread = np.round(rng.uniform(0.01, 0.05, rows), 2)
    return {
        "session": np.busday_offset(np.datetime64(start), np.arange(rows), roll="forward"),
        "open": opening,
        "high": np.maximum(opening, close) + 0.1,
        "low": np.minimum(opening, close) - 0.1,
        "close": close,
        "best_bid": close - spread,
        "best_ask": close + spread,
        "quantity": rng.integers(10_000, 1_000_000, rows).astype(np.float64),
        "ex_mark": np.full(rows, "", dtype=object),
        "distribution_number": np.full(rows, 100),
        "adjustment": np.ones(rows),
    }


@pytest.fixture
def asset_columns() -> Callable[..., Columns]:
    """The builder itself, for tests that vary its arguments."""
    return make_columns


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real B3 files beside the repository; tests that need them are skipped where they are absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real B3 data is not beside this checkout (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def zero_price_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small lake, but that the last bar of SIMA3 has an open of 0."""
    from b3dist.data.lake import ingest
    from b3dist.data.simulator import simulate

    folder = tmp_path_factory.mktemp("zero_price_lake")
    simulate(folder / "files", assets=6, sessions=400, seed=7)
    for archive in (folder / "files").glob("*.ZIP"):
        with zipfile.ZipFile(archive) as packed:
            (name,) = packed.namelist()
            lines = packed.read(name).split(b"\n")
        archive.unlink()
        last = max(number for number, line in enumerate(lines) if line[12:24].strip() == b"SIMA3")
        if "2018" in name:
            lines[last] = lines[last][:56] + b"0" * 13 + lines[last][69:]
        (folder / "files" / name).write_bytes(b"\n".join(lines))
    ingest([folder / "files"], folder / "lake")
    return folder / "lake"


@pytest.fixture(scope="session")
def small_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of six simulated assets with about 400 sessions each: enough to train, small enough to do so often."""
    from b3dist.data.lake import ingest
    from b3dist.data.simulator import simulate

    folder = tmp_path_factory.mktemp("small_lake")
    simulate(folder / "files", assets=6, sessions=400, seed=7)
    ingest([folder / "files"], folder / "lake")
    return folder / "lake"
