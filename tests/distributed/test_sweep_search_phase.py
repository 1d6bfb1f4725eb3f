"""Tune's thread beside a driver: without a cluster, what it must not do once the driver is gone, or say at all."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import auto_init_hook

from b3dist.config import Config
from b3dist.distributed.sweep import search_phase
from b3dist.distributed.sweep.search_phase import SearchThread
from b3dist.distributed.sweep.suggest import PackSizes
from b3dist.distributed.sweep.trial import TrialSettings
from b3dist.tuning.space import search_space
from b3dist.tuning.study import Search, SearchSettings

TUNES_OWN = logging.getLogger("ray.tune.execution.tune_controller")


def thread_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: Any, **options: bool) -> SearchThread:
    """The thread of a small search, with this in the place of Tune's own run."""
    space = search_space(Config())
    search = Search(SearchSettings(space=space, start=space.start(Config()), budget=2, epochs=1, seed=0))
    settings = TrialSettings(lake=tmp_path, lake_manifest_hash="", base=Config(), cohort=("SIMA3",))
    monkeypatch.setattr(auto_init_hook, "enable_auto_connect", True)
    monkeypatch.setattr(search_phase, "_make_tuner", lambda *_, **__: SimpleNamespace(fit=fit))
    return SearchThread(
        search, settings, workers=1, sizes=PackSizes(), storage=tmp_path, notify=lambda _: None, **options
    )


def test_a_thread_left_behind_connects_to_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray connects by itself in most of its calls, also after an interrupted driver's shutdown."""
    connected: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: connected.append("again"))
    thread = thread_of(tmp_path, monkeypatch, auto_init_hook.auto_init_ray)
    thread.start()
    thread.join()
    assert (thread.error, connected) == (None, [])


@pytest.mark.parametrize("debug", [False, True])
def test_tune_logs_its_tracebacks_only_for_debugging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    """A worker's death and a full disk are told in a sentence."""
    before = logging.getLogger("ray.tune").level
    try:
        thread_of(tmp_path, monkeypatch, lambda: None, debug=debug)
        assert TUNES_OWN.isEnabledFor(logging.ERROR) is debug
    finally:
        logging.getLogger("ray.tune").setLevel(before)
