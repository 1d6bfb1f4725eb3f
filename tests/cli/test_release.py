"""`b3dist release`: the verbs' answers, their sentences where something is wrong, and MLflow's copy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from b3dist.data.lake import ingest
from b3dist.data.simulator import simulate
from b3dist.distributed.fleet.initial import InitialSource, warm_config
from b3dist.run_folder import RunFolder
from b3dist.tracking import default_uri
from b3dist.tracking.registry import MODEL
from b3dist.tracking.store import connect
from tests.cli.conftest import Outcome
from tests.release.releases import seeded, train_run
from tests.training.pooled_runs import train_pooled_run

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def runs(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs, the newer of which lacks an asset."""
    runs = tmp_path_factory.mktemp("release_verbs") / "runs"
    train_run(small_lake, runs, tickers=["SIMA3", "SIMA4"])
    train_run(small_lake, runs, tickers=["SIMA3"], failed=["SIMA4"], config=seeded(1))
    return runs


@pytest.fixture
def older(runs: Path) -> RunFolder:
    """The run of both assets."""
    return next(run for run in _all(runs) if len(list(run.assets.iterdir())) == 2)


@pytest.fixture
def newer(runs: Path) -> RunFolder:
    """The run that lacks one."""
    return next(run for run in _all(runs) if len(list(run.assets.iterdir())) == 1)


def _all(runs: Path) -> list[RunFolder]:
    return [RunFolder.open(runs, path.name) for path in runs.iterdir()]


def test_fallback_on_another_lake_is_said_and_the_ladder_shown(
    b3dist: Command, small_lake: Path, tmp_path: Path
) -> None:
    """It is allowed, but not in silence; a person reads how many assets have which model."""
    runs = tmp_path / "runs"
    own, below = train_run(small_lake, runs, tickers=["SIMA3"]), train_pooled_run(small_lake, runs)
    words = ("release", "create", own.run_id, "--fallback", below.run_id, "--runs", runs)
    shown = b3dist(*words)
    assert shown.exit_code == 0
    assert "1 assets have a model of their own, 5 the pooled one, 0 none" in shown.stdout
    assert "another lake" not in shown.stderr
    config = below.path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lake_manifest_hash": "ab" * 32}))
    created = b3dist(*words, "--json")
    assert created.exit_code == 0
    (warning,) = created.answer["warnings"]
    assert f"{below.run_id} was trained on another lake" in warning
    assert warning in created.stderr


def test_bundle_without_its_splits_is_not_released(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """A sentence that names the bundle, in place of an unexpected error."""
    run = train_run(small_lake, tmp_path / "runs", tickers=["SIMA3"])
    path = run.assets / "SIMA3" / "bundle.json"
    facts = json.loads(path.read_text())
    del facts["splits"]
    path.write_text(json.dumps(facts))
    outcome = b3dist("release", "create", run.run_id, "--runs", run.path.parent, "--json")
    assert outcome.exit_code == 1
    assert f"the bundle {path.parent} cannot be released: it lacks 'splits'" in outcome.answer["error"]


def test_from_create_to_rollback(b3dist: Command, older: RunFolder, newer: RunFolder) -> None:
    """Each verb answers with release_id, alias and assets; releases and MLflow lie beside the runs."""
    where = ("--runs", older.path.parent, "--json")
    created = b3dist("release", "create", older.run_id, *where)
    assert created.exit_code == 0
    first = created.answer
    assert (first["alias"], first["assets"], first["run_id"]) == (None, 2, older.run_id)
    assert Path(first["path"]).parent == older.path.parents[1] / "releases"
    promoted = b3dist("release", "promote", first["release_id"], *where).answer
    assert (promoted["release_id"], promoted["alias"], promoted["assets"]) == (first["release_id"], "champion", 2)
    assert promoted["mirror_error"] is None
    second = b3dist("release", "create", newer.run_id, "--refit", "--workers", 1, *where).answer
    assert (second["assets"], second["refitted"], second["carried_over"]) == (2, 1, 1)
    assert second["carried_over_assets"] == [{"ticker": "SIMA4", "state": "failed", "reason": "it diverged"}]
    moved = b3dist("release", "promote", second["release_id"], "--margin", 9, *where).answer
    assert (moved["before"], moved["overridden"]) == (first["release_id"], [])
    assert {score["name"] for score in moved["comparison"]["scores"]} == {"return_error", "macro_f1"}
    assert _mirrored(older.path.parent) == {"champion": second["release_id"]}
    listed = b3dist("release", "list", *where).answer
    assert [(one["release_id"], one["alias"]) for one in listed["releases"]] == [
        (second["release_id"], "champion"),
        (first["release_id"], None),
    ]
    assert (listed["release_id"], listed["alias"], listed["assets"]) == (second["release_id"], "champion", 2)
    back = b3dist("release", "rollback", *where).answer
    assert (back["release_id"], back["alias"], back["assets"]) == (first["release_id"], "champion", 2)
    assert _mirrored(older.path.parent) == {"champion": first["release_id"]}
    nothing = b3dist("release", "rollback", *where)
    assert nothing.exit_code == 1
    assert "nothing to roll back to" in nothing.answer["error"]


def _mirrored(runs: Path) -> dict[str, str]:
    """Alias -> release id, as MLflow says."""
    client = connect(default_uri(runs))
    aliases = client.get_registered_model(MODEL).aliases
    versions = {alias: client.get_model_version(MODEL, str(version)) for alias, version in aliases.items()}
    return {alias: version.tags["b3dist.release_id"] for alias, version in versions.items()}


def test_what_a_person_reads(b3dist: Command, older: RunFolder, tmp_path: Path) -> None:
    """Create says how to serve it; list shows whole ids; show prints the card; ids may be aliases."""
    where = ("--runs", older.path.parent, "--releases", tmp_path / "releases")
    created = b3dist("release", "create", older.run_id, *where)
    (path,) = (tmp_path / "releases").glob("[!.]*/")
    assert f"serve it with: b3dist release promote {path.name} --runs" in created.stdout.replace("\n", " ")
    told = b3dist("release", "promote", path.name, "--alias", "challenger", "--no-mlflow", *where)
    assert told.stdout == f"challenger is {path.name} (2 assets)\n"
    assert path.name in b3dist("release", "list", *where).stdout
    assert (
        b3dist("release", "show", "challenger", *where).stdout.strip() == (path / "model_card.md").read_text().strip()
    )
    facts = b3dist("release", "show", path.name, "--json", *where).answer
    assert (facts["alias"], facts["assets"], facts["aliases"]) == ("challenger", 2, ["challenger"])
    assert facts["manifest"] == json.loads((path / "manifest.json").read_text())


def test_what_was_carried_over_is_named(
    b3dist: Command, older: RunFolder, newer: RunFolder, small_lake: Path, tmp_path: Path
) -> None:
    """Each with what became of it in the run, and that it keeps what the champion served."""
    where = ("--runs", older.path.parent, "--releases", tmp_path / "releases")
    told = b3dist("release", "create", older.run_id, *where).stdout
    assert "it serves each asset's evaluated weights\n" in told
    (path,) = (tmp_path / "releases").glob("[!.]*/")
    b3dist("release", "promote", path.name, "--no-mlflow", *where)
    told = b3dist("release", "create", newer.run_id, *where).stdout
    assert "evaluated weights; an asset carried over keeps what the champion served:\n" in told
    assert "  SIMA4: failed, it diverged\n" in told
    other = train_run(small_lake, tmp_path / "runs", tickers=["SIMA4"])
    told = b3dist("release", "create", other.run_id, "--runs", tmp_path / "runs", *where[2:]).stdout
    assert "  SIMA3: not in the run\n" in told
    (card,) = (
        one.read_text() for one in (tmp_path / "releases").glob("*/model_card.md") if other.run_id in one.read_text()
    )
    assert "an asset carried over keeps what its earlier release served" in card


def test_a_refit_that_fails_for_one_asset(b3dist: Command, older: RunFolder, tmp_path: Path) -> None:
    """On a lake without it, the asset is served as evaluated: exit code 3, and stderr says why."""
    simulate(tmp_path / "files", assets=1, sessions=400, seed=7)
    ingest([tmp_path / "files"], tmp_path / "lake")
    where = ("--runs", older.path.parent, "--releases", tmp_path / "releases")
    words = ("--refit", "--lake", tmp_path / "lake", "--workers", 1, "--json")
    done = b3dist("release", "create", older.run_id, *words, *where)
    assert done.exit_code == 3
    assert (done.answer["assets"], done.answer["refitted"]) == (2, 1)
    assert list(done.answer["refit_failed"]) == ["SIMA4"]
    assert "SIMA4 was not refitted: " in done.stderr
    assert "refitted 2/2 assets" in done.stderr


def test_a_warm_started_run_is_refitted_from_its_start(
    b3dist: Command, small_lake: Path, older: RunFolder, tmp_path: Path
) -> None:
    """The run's settings say where it began."""
    start = InitialSource(kind="run", path=older.path)
    warm = train_run(
        small_lake, tmp_path / "runs", tickers=["SIMA3"], config=seeded(0, "data.to_session=2018-12-20"), start=start
    )
    done = b3dist("release", "create", warm.run_id, "--refit", "--runs", tmp_path / "runs", "--json")
    assert (done.exit_code, done.answer["refitted"]) == (0, 1)


def test_a_kept_start_is_not_counted_as_refitted(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """What is served, and why nothing was trained again, is said where a person reads it and counted for a program."""
    pooled_run = train_pooled_run(small_lake, tmp_path / "runs")
    source = InitialSource(kind="run", path=pooled_run.path)
    config = warm_config(source).with_overrides(["training.learning_rate=3", "training.epochs=2"])
    warm = train_run(small_lake, tmp_path / "runs", tickers=["SIMA3"], config=config, start=source)
    words = ("release", "create", warm.run_id, "--runs", tmp_path / "runs", "--refit", "--workers", "1")
    shown = b3dist(*words, "--releases", tmp_path / "shown")
    assert shown.exit_code == 0
    assert "serves each asset's evaluated weights (1 assets kept the weights they began from" in shown.stdout
    answer = b3dist(*words, "--releases", tmp_path / "answered", "--json").answer
    assert (answer["refitted"], answer["ladder"]) == (0, {"own": 0, "pooled": 1, "naive": 0})


def test_a_refused_promotion(b3dist: Command, small_lake: Path, tmp_path: Path) -> None:
    """Exit code 1, the paired numbers and how to go on; --force says what it overrides."""
    where = ("--runs", tmp_path / "runs", "--no-mlflow")
    good = train_run(small_lake, tmp_path / "runs", tickers=["SIMA3", "SIMA4"])
    bad = train_run(
        small_lake, tmp_path / "runs", tickers=["SIMA3", "SIMA4"], config=seeded(0, "training.learning_rate=3")
    )
    first, second = (
        b3dist("release", "create", run.run_id, *where[:2], "--json").answer["release_id"] for run in (good, bad)
    )
    b3dist("release", "promote", first, *where)
    refused = b3dist("release", "promote", second, *where)
    assert refused.exit_code == 1
    assert f"release {second} is not promoted: return_error" in refused.stderr
    assert "--force promotes it all the same" in refused.stderr
    forced = b3dist("release", "promote", second, "--force", *where)
    assert forced.exit_code == 0
    assert "--force overrides: return_error" in forced.stderr
    assert f"champion is {second} (2 assets), which was {first}" in forced.stdout


def test_a_mirror_that_fails_is_a_warning(b3dist: Command, older: RunFolder, tmp_path: Path) -> None:
    """The promotion stands; stderr says that MLflow does not show it."""
    where = ("--runs", older.path.parent, "--releases", tmp_path / "releases")
    release_id = b3dist("release", "create", older.run_id, *where, "--json").answer["release_id"]
    (tmp_path / "mlflow.db").write_text("this is no database")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = b3dist("release", "promote", release_id, "--tracking-uri", uri, *where)
    assert done.exit_code == 0
    assert done.stderr.index(f"champion is {release_id}") < done.stderr.index("mirroring to MLflow ...")
    assert done.stderr.index("mirroring to MLflow ...") < done.stderr.index("MLflow does not say so yet")
    assert json.loads((tmp_path / "releases" / "aliases.json").read_text())["champion"] == release_id


def test_what_is_not_there_is_said(b3dist: Command, older: RunFolder, tmp_path: Path) -> None:
    """The nearest run or release; what to do where there is none; options that contradict are wrong usage."""
    runs = ("--runs", older.path.parent)
    done = b3dist("release", "create", older.run_id[:-1], *runs, "--json")
    assert done.exit_code == 1
    assert done.answer["hint"] == f"the nearest is {older.run_id}"
    for verb in (["promote", "champion"], ["show", "champion"]):
        done = b3dist("release", *verb, *runs, "--releases", tmp_path / "none", "--json")
        assert done.exit_code == 1
        assert "no release in" in done.answer["error"]
    assert not (tmp_path / "none").exists()
    assert "no releases in" in b3dist("release", "list", *runs, "--releases", tmp_path / "none").stdout
    assert b3dist("release", "create", older.run_id, "--lake", "lake", *runs).exit_code == 2
