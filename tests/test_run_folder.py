"""A run's folder: made, reopened, locked, compared, listed and pruned."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from b3dist.config import Config
from b3dist.distributed.fleet.initial import INIT_FROM, InitialSource
from b3dist.distributed.run_list import list_runs, prune_runs, run_status
from b3dist.errors import ConfigError, RunError, StorageError
from b3dist.run_folder import RunFolder, RunSettings, is_driven, replace_json

SETTINGS = RunSettings(
    config=Config(),
    lake=Path("lake"),
    lake_manifest_hash="ab" * 32,
    tickers=("PETR4", "VALE3"),
    created_at="2018-12-28T18:00:00+00:00",
    versions={"b3dist": "0"},
)


def test_run_is_reopened_as_it_was_made(tmp_path: Path) -> None:
    """Settings survive the way through config.json, and the id sorts by time."""
    made = RunFolder.create(tmp_path, SETTINGS)
    opened = RunFolder.open(tmp_path, made.run_id)
    assert opened.settings == dataclasses.replace(SETTINGS, tickers=["PETR4", "VALE3"])
    assert made.run_id[:2] == "20"
    assert made.assets.is_dir()


def test_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    """The folder of all runs is a file: a clear error, before any cluster is started."""
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StorageError, match="cannot make a run in"):
        RunFolder.create(tmp_path / "runs", SETTINGS)


def test_unknown_run_names_the_nearest(tmp_path: Path) -> None:
    """A mistyped id is answered with the id that was meant."""
    made = RunFolder.create(tmp_path, SETTINGS)
    with pytest.raises(RunError) as caught:
        RunFolder.open(tmp_path, made.run_id[:-1])
    assert made.run_id in caught.value.hint


def test_damaged_config_is_an_error(tmp_path: Path) -> None:
    """Half a config.json is not guessed at."""
    made = RunFolder.create(tmp_path, SETTINGS)
    (made.path / "config.json").write_text('{"schema_version": 1')
    with pytest.raises(RunError, match="damaged"):
        RunFolder.open(tmp_path, made.run_id)


def test_resume_refuses_another_configuration_and_names_the_difference(tmp_path: Path) -> None:
    """Assets trained differently do not belong in one run."""
    run = RunFolder.create(tmp_path, SETTINGS)
    run.require_same(config=Config(), lake_manifest_hash="ab" * 32)
    with pytest.raises(ConfigError, match=r"training\.epochs was 50, is 3"):
        run.require_same(config=Config().with_overrides(["training.epochs=3"]), lake_manifest_hash="ab" * 32)


def test_resume_refuses_a_changed_lake(tmp_path: Path) -> None:
    """New data means a new run."""
    run = RunFolder.create(tmp_path, SETTINGS)
    with pytest.raises(ConfigError, match="the lake has changed"):
        run.require_same(config=Config(), lake_manifest_hash="cd" * 32)


def test_two_drivers_cannot_have_the_same_run(tmp_path: Path) -> None:
    """The second is told who the first is; once that has ended it may."""
    run = RunFolder.create(tmp_path, SETTINGS)
    with run.driven():
        assert is_driven(run.path)
        with pytest.raises(RunError, match="is being driven by process"), run.driven():
            pass
    assert not is_driven(run.path)
    with run.driven():
        pass


def test_leftovers_of_killed_workers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """What was written aside goes, a committed bundle stays."""
    run = RunFolder.create(tmp_path, SETTINGS)
    (run.assets / ".PETR4.12345678.tmp").mkdir()
    (run.assets / "VALE3").mkdir()
    run.remove_leftovers()
    assert [folder.name for folder in run.assets.iterdir()] == ["VALE3"]


def test_prune_keeps_the_newest_and_refuses_the_running(tmp_path: Path) -> None:
    """Old runs go, a running one stays however old it is, and foreign folders are not looked at."""
    runs = []
    for number in range(4):
        run = RunFolder.create(tmp_path, SETTINGS)
        runs.append(run.path.rename(tmp_path / f"2018010{number}-000000-aaaa"))
    (tmp_path / "notes").mkdir()
    oldest = RunFolder.open(tmp_path, runs[0].name)
    with oldest.driven():
        assert list_runs(tmp_path)[-1].state == "running"
        pruned = prune_runs(tmp_path, keep=1)
    assert pruned.deleted == [runs[2].name, runs[1].name]
    assert pruned.running == [runs[0].name]
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [runs[0].name, runs[3].name, "notes"]


def test_prune_keeps_what_an_unfinished_run_starts_from(tmp_path: Path) -> None:
    """Without its source it could not be resumed; once nobody kept needs it, the source goes too."""
    source = RunFolder.create(tmp_path, SETTINGS).path.rename(tmp_path / "20180101-000000-aaaa")
    RunFolder.create(tmp_path, SETTINGS).path.rename(tmp_path / "20180102-000000-aaaa")
    begun_from = {INIT_FROM: InitialSource(kind="run", path=source).to_option()}
    run = RunFolder.create(tmp_path, dataclasses.replace(SETTINGS, options=begun_from))
    pruned = prune_runs(tmp_path, keep=1)
    assert pruned.deleted == ["20180102-000000-aaaa"]
    assert pruned.needed == [source.name]
    assert pruned.kept == [run.run_id, source.name]
    assert prune_runs(tmp_path, keep=0).deleted == [run.run_id, source.name]


def test_status_of_a_new_run_has_every_asset_waiting(tmp_path: Path) -> None:
    """Status reads the ledger, not the summary: it is there from the first moment."""
    run = RunFolder.create(tmp_path, SETTINGS)
    status = run_status(tmp_path, run.run_id)
    assert {entry["ticker"]: entry["state"] for entry in status["entries"]} == {"PETR4": "waiting", "VALE3": "waiting"}
    assert status["state"] == "interrupted"
    json.dumps(status)


def test_negative_number_to_keep_is_refused(tmp_path: Path) -> None:
    """Nothing is deleted by a typing error."""
    with pytest.raises(ConfigError, match="at least 0"):
        prune_runs(tmp_path, keep=-1)


def test_a_replaced_file_is_on_the_disk_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content is flushed before the rename, the folder's names after it: a power cut brings no older one back."""
    flushed: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        flushed.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), (tmp_path / "aliases.json").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    replace_json(tmp_path / "aliases.json", {"champion": "R"})
    assert flushed == [(str(tmp_path / f".aliases.json.{os.getpid()}.tmp"), False), (str(tmp_path), True)]
