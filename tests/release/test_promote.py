"""Promoting and rolling back move one file in one step, and only to a release that is no worse."""

import hashlib
import itertools
import json
import shutil
import threading
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from b3dist.data.lake import Lake
from b3dist.distributed.run_list import prune_runs
from b3dist.errors import ConfigError, ReleaseError
from b3dist.release import ReleaseStore, create_release, promote, rollback
from b3dist.release.build import collect_run, write_release
from b3dist.release.gate import compare_releases
from b3dist.release.ladder import naive_parts
from b3dist.release.seal import seal_of
from b3dist.run_folder import RunFolder
from tests.distributed.runs import contents
from tests.release.releases import seeded, train_run


@pytest.fixture(scope="module")
def releases(small_lake: Path, run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[ReleaseStore, dict]:
    """A folder of releases without aliases, and their ids by what they are."""
    folder = tmp_path_factory.mktemp("promote")
    store = ReleaseStore(folder / "releases")
    runs = {
        "first": run,
        "second": train_run(small_lake, folder / "runs", config=seeded(1)),
        "bad": train_run(small_lake, folder / "runs", config=seeded(0, "training.learning_rate=3")),
        "few": train_run(small_lake, folder / "runs", config=seeded(0), tickers=["SIMA3", "SIMB11"]),
        "early": train_run(
            small_lake,
            folder / "runs",
            config=seeded(0, "data.to_session=2018-09-03", "data.min_sessions=200"),
        ),
    }
    return store, {name: create_release(store, one).release_id for name, one in runs.items()}


@pytest.fixture
def store(releases: tuple[ReleaseStore, dict], tmp_path: Path) -> ReleaseStore:
    """A copy of the folder of releases, to change."""
    shutil.copytree(releases[0].path, tmp_path / "releases")
    return ReleaseStore(tmp_path / "releases")


@pytest.fixture
def ids(releases: tuple[ReleaseStore, dict]) -> dict[str, str]:
    """Release ids by what they are."""
    return releases[1]


def test_an_alias_is_one_file(store: ReleaseStore, ids: dict[str, str]) -> None:
    """aliases.json names the champion; its name opens it; the release's own files are not touched."""
    before = contents(store.path)
    moved = promote(store, ids["first"])
    assert (moved.release_id, moved.alias, moved.before, moved.overridden) == (ids["first"], "champion", None, ())
    assert json.loads((store.path / "aliases.json").read_text())["champion"] == ids["first"]
    assert store.open("champion").release_id == ids["first"] == store.resolve("champion")
    assert {name: one for name, one in contents(store.path).items() if "/" in name} == {
        name: one for name, one in before.items() if "/" in name
    }
    promote(store, "champion", alias="challenger")
    assert store.aliases() == {"champion": ids["first"], "challenger": ids["first"]}


def test_a_rollback_returns_the_very_same_bytes(store: ReleaseStore, ids: dict[str, str]) -> None:
    """After two promotions, two steps back; the third has nothing to go back to and changes nothing."""
    promote(store, ids["first"])
    first = contents(store.path / store.resolve("champion"))
    promote(store, ids["second"], margin=1)
    promote(store, ids["second"])  # again: no step of its own
    promote(store, ids["few"], force=True)
    assert rollback(store).release_id == ids["second"]
    moved = rollback(store)
    assert (moved.release_id, moved.before, moved.assets) == (ids["first"], ids["second"], 6)
    assert contents(store.path / store.resolve("champion")) == first
    aliases = (store.path / "aliases.json").read_bytes()
    with pytest.raises(ReleaseError, match="nothing to roll back to: no release was champion before"):
        rollback(store)
    with pytest.raises(ReleaseError, match="no release was challenger before"):
        rollback(store, alias="challenger")
    assert (store.path / "aliases.json").read_bytes() == aliases


def test_a_changed_or_lost_release_is_not_rolled_back_to(store: ReleaseStore, ids: dict[str, str]) -> None:
    """What was champion must be what it was, even if somebody sealed another content; the alias stays."""
    promote(store, ids["first"])
    promote(store, ids["second"], force=True)
    path = store.path / ids["first"]
    kept = {file.name: file.read_bytes() for file in path.iterdir()}
    for file in path.iterdir():
        file.chmod(0o644)
    (path / "manifest.json").write_bytes(kept["manifest.json"] + b"\n")
    with pytest.raises(ReleaseError, match=r"does not match manifest\.sha256"):
        rollback(store)
    digest = hashlib.sha256(kept["manifest.json"] + b"\n").hexdigest()
    (path / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
    assert store.open(ids["first"]).manifest_sha256 == digest
    with pytest.raises(ReleaseError, match="is not the one that was champion"):
        rollback(store)
    shutil.rmtree(path)
    with pytest.raises(ReleaseError, match=f"there is no release '{ids['first']}'"):
        rollback(store)
    assert store.aliases() == {"champion": ids["second"]}


def test_a_worse_release_is_refused(store: ReleaseStore, ids: dict[str, str]) -> None:
    """With the paired numbers in the sentence, the alias as before; force promotes and says what it overrode."""
    promote(store, ids["first"])
    before = (store.path / "aliases.json").read_bytes()
    with pytest.raises(ReleaseError, match=r"return_error .* against the champion's .* by more than 0\.02") as caught:
        promote(store, ids["bad"])
    assert "--force" in caught.value.hint
    assert (store.path / "aliases.json").read_bytes() == before
    assert promote(store, ids["bad"], alias="challenger").overridden == ()
    moved = promote(store, ids["bad"], force=True)
    assert store.resolve("champion") == ids["bad"]
    assert moved.overridden
    assert moved.overridden[0].startswith("return_error")
    assert moved.comparison is not None
    assert promote(store, ids["first"]).overridden == ()  # better than the bad one


def test_the_margin_is_the_users(store: ReleaseStore, ids: dict[str, str]) -> None:
    """A wide margin lets the worse release through; a negative one, or none at all, is refused."""
    promote(store, ids["first"])
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ConfigError, match="the margin must be at least 0"):
            promote(store, ids["bad"], margin=wrong)
    assert promote(store, ids["bad"], margin=100).comparison is not None
    assert store.resolve("champion") == ids["bad"]


def test_fewer_assets_are_refused(store: ReleaseStore, ids: dict[str, str]) -> None:
    """The sentence counts both and names what would be lost."""
    promote(store, ids["first"])
    with pytest.raises(ReleaseError, match=r"covers 2 assets, the champion 6 \(missing: SIMA4, "):
        promote(store, ids["few"])


def test_only_coverage_is_lost_where_the_models_are_the_same(release: Any, run: RunFolder, tmp_path: Path) -> None:
    """Of a release that lacks one asset and shares the other models nothing is said but what is missing."""
    store = ReleaseStore(tmp_path / "releases")
    parts = collect_run(run)
    plain = {"refit": False, "refit_lake_manifest_hash": None, "refit_failed": {}}
    candidate = store.open(write_release(store, run, parts[1:], plain))
    (objection,) = compare_releases(release, candidate).objections
    assert objection == f"it covers 5 assets, the champion 6 (missing: {parts[0].ticker})"


def test_nothing_in_common_is_no_verdict(run: RunFolder, tmp_path: Path) -> None:
    """As many assets, but others than the champion's: there is nothing to compare, and it is refused."""
    store = ReleaseStore(tmp_path / "releases")
    parts = collect_run(run)
    plain = {"refit": False, "refit_lake_manifest_hash": None, "refit_failed": {}}
    old, new = (store.open(write_release(store, run, some, plain)) for some in (parts[:2], parts[1:3]))
    (objection,) = compare_releases(old, new).objections
    assert objection == "the two have no test session, horizon and label set in common to be compared on"


def test_the_naive_forecast_covers_nothing(small_lake: Path, store: ReleaseStore, ids: dict[str, str]) -> None:
    """A release that has no model of four assets covers fewer, even if it answers for them with no change."""
    promote(store, ids["first"])
    run = train_run(small_lake, store.path.parent / "runs", tickers=["SIMA3", "SIMB11"])
    parts = collect_run(run)
    lost = sorted(store.open("champion").assets.keys() - {"SIMA3", "SIMB11"})
    naive = naive_parts(lost, like=parts, run_id=run.run_id, newest=date(2018, 12, 28))
    plain = {"refit": False, "refit_lake_manifest_hash": None, "refit_failed": {}}
    release_id = write_release(store, run, [*parts, *naive], plain)
    assert len(store.open(release_id).assets) == 6
    with pytest.raises(ReleaseError, match="covers 2 assets, the champion 6"):
        promote(store, release_id)


def test_without_common_sessions_there_is_no_verdict(store: ReleaseStore, ids: dict[str, str]) -> None:
    """A release whose test part ended before the champion's began cannot be shown to be no worse."""
    promote(store, ids["first"])
    with pytest.raises(ReleaseError, match="no test session, horizon and label set in common"):
        promote(store, ids["early"])
    assert promote(store, ids["early"], force=True).release_id == ids["early"]


def oracle(runs: Mapping[str, Path], tickers: list[str]) -> dict[str, Any]:
    """The gate's scores by scikit-learn and pandas, from the bundles of two runs."""
    both = []
    for name, assets in runs.items():
        tables = []
        for ticker in tickers:
            table = pd.read_parquet(assets / ticker / "predictions.parquet").assign(ticker=ticker)
            tables.append(table[table["split"] == "test"])
        both.append(pd.concat(tables).set_index(["ticker", "session"]).add_prefix(f"{name}_"))
    rows = both[0].join(both[1], how="inner")
    truth = rows["new_y_return"]
    naive = (truth**2).groupby("ticker").mean() ** 0.5
    scores: dict[str, Any] = {"windows": len(rows)}
    for name in ("old", "new"):
        rmse = ((rows[f"{name}_return_pred"] - truth) ** 2).groupby("ticker").mean() ** 0.5
        scores[f"{name}_error"] = (rmse / naive).mean()
        scores[f"{name}_f1"] = f1_score(rows["new_y_action"], rows[f"{name}_action"], average="macro", zero_division=0)
    return scores


def test_the_gate_judges_common_sessions_only(small_lake: Path, tmp_path: Path) -> None:
    """Of two runs over different periods it takes the sessions in both test parts; the scores are an oracle's."""
    tickers = ["SIMA3", "SIMB11", "SIME3"]
    old = train_run(small_lake, tmp_path / "runs", config=seeded(0, "data.to_session=2018-11-05"), tickers=tickers)
    new = train_run(small_lake, tmp_path / "runs", config=seeded(1), tickers=tickers)
    store = ReleaseStore(tmp_path / "releases")
    champion, candidate = (create_release(store, one) for one in (old, new))
    expected = oracle({"old": old.assets, "new": new.assets}, tickers)
    comparison = compare_releases(champion, candidate)
    error, f1 = comparison.scores
    assert 0 < expected["windows"] < champion.predictions().num_rows / 2
    assert (error.windows, f1.windows) == (expected["windows"], expected["windows"])
    for score, name in ((error, "error"), (f1, "f1")):
        np.testing.assert_allclose(
            [score.champion, score.candidate], [expected[f"old_{name}"], expected[f"new_{name}"]], rtol=1e-12
        )
    assert error.worse_by == pytest.approx(error.candidate - error.champion)
    assert f1.worse_by == pytest.approx(f1.champion - f1.candidate)


def test_a_single_asset_can_be_compared(small_lake: Path, release: Any, tmp_path: Path) -> None:
    """Without others there is no error of the mean, and both scores are there."""
    run = train_run(small_lake, tmp_path / "runs", config=seeded(1), tickers=["SIMA3"])
    scores = compare_releases(release, create_release(ReleaseStore(tmp_path / "releases"), run)).scores
    assert [(score.name, score.assets, score.standard_error) for score in scores] == [
        ("return_error", 1, None),
        ("macro_f1", 1, None),
    ]


def test_other_questions_are_not_compared(small_lake: Path, release: Any, tmp_path: Path) -> None:
    """With another label set only the returns are compared; with another horizon nothing is."""
    for override, compared in (("data.label_set=forward_return", ["return_error"]), ("data.horizon=3", [])):
        run = train_run(small_lake, tmp_path / "runs", config=seeded(0, override), tickers=["SIMA3", "SIMB11"])
        other = create_release(ReleaseStore(tmp_path / "releases"), run)
        comparison = compare_releases(release, other)
        assert [score.name for score in comparison.scores] == compared


def test_missing_assets_are_carried_over(small_lake: Path, release: Any, run: RunFolder, tmp_path: Path) -> None:
    """Bit for bit, with the age in exchange sessions, through two releases, and without the runs of before."""
    store = ReleaseStore(tmp_path / "releases")
    old = train_run(small_lake, tmp_path / "runs", config=seeded(3, "data.to_session=2018-12-03"))
    first = create_release(store, old)
    promote(store, first.release_id)
    shutil.rmtree(old.path)
    kept = {ticker: first.state(asset.served) for ticker, asset in first.assets.items()}
    for number, present in enumerate((["SIMA3", "SIMB11", "SIME3"], ["SIMA3"])):
        wide = seeded(4, "model.hidden_size=12")
        again = train_run(small_lake, tmp_path / "runs", config=wide, tickers=present, failed=["SIMA4"])
        second = create_release(store, again)
        assert len(second.assets) == 6
        promote(store, second.release_id, force=True)
        calendar = Lake(small_lake).calendar()
        newest = np.datetime64(second.manifest["newest_session"])
        for ticker in ("SIMA4", "SIMD5"):
            asset = second.assets[ticker]
            assert asset.carried_over
            assert asset.run_id == old.run_id
            assert asset.facts["carried_from"] == first.release_id
            seen = np.datetime64(first.manifest["newest_session"])
            assert asset.facts["age_sessions"] == ((calendar > seen) & (calendar <= newest)).sum() > 0
            assert all(np.array_equal(second.state(asset.served)[name], kept[ticker][name]) for name in kept[ticker])
            assert asset.served.model_sha256 == first.assets[ticker].served.model_sha256
            assert second.predictions(ticker).equals(first.predictions(ticker))
            assert second.groups[asset.served.group].model.hidden_size == 8
        assert not second.assets["SIMA3"].carried_over
        assert second.groups[second.assets["SIMA3"].served.group].model.hidden_size == 12
        assert second.assets["SIMB11"].carried_over == (number == 1)
    alone = create_release(store, again, carry_over=False)
    assert list(alone.assets) == ["SIMA3"]
    assert alone.manifest["not_covered"] == [{"ticker": "SIMA4", "state": "failed", "reason": "it diverged"}]


def test_a_release_outlives_its_run(small_lake: Path, tmp_path: Path) -> None:
    """Once its run is pruned, a release opens, is compared, is carried over from and is rolled back to."""
    store = ReleaseStore(tmp_path / "releases")
    runs = tmp_path / "runs"
    first = create_release(store, train_run(small_lake, runs, tickers=["SIMA3", "SIMB11"]))
    second = create_release(store, train_run(small_lake, runs, tickers=["SIMA3", "SIMB11"], config=seeded(1)))
    assert len(prune_runs(runs, keep=0).deleted) == 2
    promote(store, first.release_id)
    assert promote(store, second.release_id, margin=1).comparison is not None
    third = create_release(store, train_run(small_lake, runs, tickers=["SIME3"]))
    assert {ticker: asset.carried_over for ticker, asset in third.assets.items()} == {
        "SIMA3": True,
        "SIMB11": True,
        "SIME3": False,
    }
    assert rollback(store).release_id == first.release_id
    assert store.open("champion").state(first.assets["SIMA3"].served).keys() == first.groups[0].weights.keys()


def test_a_failing_mirror_costs_nothing(store: ReleaseStore, ids: dict[str, str]) -> None:
    """The alias moves, and what the mirror said is told; the next promotion tells it everything again."""
    told: list[Mapping[str, Any]] = []

    def mirror(current: Mapping[str, Any]) -> None:
        told.append({alias: pointer.release_id for alias, pointer in current.items()})
        if len(told) == 1:
            raise ConnectionError("no server")

    moved = promote(store, ids["first"], mirror=mirror)
    assert moved.mirror_error == "ConnectionError: no server"
    assert store.resolve("champion") == ids["first"]
    assert promote(store, ids["bad"], alias="challenger", mirror=mirror).mirror_error is None
    assert told[1] == {"champion": ids["first"], "challenger": ids["bad"]}


def test_a_slow_mirror_makes_nobody_wait(store: ReleaseStore, ids: dict[str, str]) -> None:
    """While MLflow does not answer, another promotion goes through; what is mirrored last is what the aliases are."""
    told: list[dict[str, str]] = []
    order: list[str] = []

    def slow(current: Mapping[str, Any]) -> None:
        if not told:
            order.append("mirror")
            other = threading.Thread(target=promote, args=(store, ids["second"]), kwargs={"alias": "challenger"})
            other.start()
            other.join(timeout=30)
            assert not other.is_alive()
        told.append({alias: pointer.release_id for alias, pointer in current.items()})

    moved = promote(store, ids["first"], mirror=slow, on_moved=lambda one: order.append(one.release_id))
    assert moved.mirror_error is None
    assert order == [ids["first"], "mirror"]
    assert told == [{"champion": ids["first"]}, {"champion": ids["first"], "challenger": ids["second"]}]


def test_an_alias_opens_what_was_promoted(store: ReleaseStore, ids: dict[str, str]) -> None:
    """Another manifest under the champion's id is refused by its alias, sealed or not; its id can be promoted anew."""
    promote(store, ids["first"])
    path = store.path / ids["first"]
    for file in path.iterdir():
        file.chmod(0o644)
    manifest = (path / "manifest.json").read_bytes() + b"\n"
    (path / "manifest.json").write_bytes(manifest)
    (path / "manifest.sha256").write_bytes(seal_of(manifest))
    for read in (
        lambda: store.open("champion"),
        lambda: store.open(ids["first"], alias="champion"),
        lambda: store.card("champion"),
        lambda: promote(store, "champion", alias="challenger"),
    ):
        with pytest.raises(ReleaseError, match="is not the one that was champion"):
            read()
    assert {info.release_id: info.problem for info in store.list() if info.problem}.keys() == {ids["first"]}
    with pytest.raises(ReleaseError, match="the champion to compare it with cannot be read"):
        promote(store, ids["second"])
    promote(store, ids["first"])
    assert store.open("champion").manifest_sha256 == hashlib.sha256(manifest).hexdigest()


def test_promotions_at_once_lose_nothing(store: ReleaseStore, ids: dict[str, str]) -> None:
    """Eight at a time, one after the other: the history holds every one of them."""
    wanted = [ids["first"], ids["second"]] * 4
    threads = [threading.Thread(target=promote, args=(store, one), kwargs={"alias": "challenger"}) for one in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = json.loads((store.path / "aliases.json").read_text())
    history = [one["release_id"] for one in content["previous"]["challenger"]] + [content["challenger"]]
    assert all(left != right for left, right in itertools.pairwise(history))
    assert set(history) == {ids["first"], ids["second"]}
    for expected in reversed(history[:-1]):
        rollback(store, alias="challenger")
        assert store.resolve("challenger") == expected


def damaged_pointer(**fields: Any) -> str:
    """An aliases.json whose champion has other fields."""
    pointer = {"release_id": "a", "manifest_sha256": "b", "promoted_at": "c", **fields}
    return json.dumps({"schema_version": 1, "current": {"champion": pointer}, "previous": {}})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema_version": 1}',
        '{"schema_version": 9}',
        "[" * 100_000,
        '{"schema_version": 1, "current": {"champion": null}, "previous": {}}',
        '{"schema_version": 1, "current": {}, "previous": {"champion": ""}}',
        '{"schema_version": 1, "current": {}, "previous": {"champion": {}}}',
        damaged_pointer(release_id=None),
        damaged_pointer(release_id=["x"]),
        damaged_pointer(release_id=""),
        damaged_pointer(release_id="\ud800"),
        damaged_pointer(manifest_sha256=1),
        damaged_pointer(promoted_at={}),
        damaged_pointer(more=1),
    ],
)
def test_damaged_aliases_are_said(text: str, tmp_path: Path) -> None:
    """A torn, foreign or edited aliases.json is named in one sentence, with what to do."""
    (tmp_path / "aliases.json").write_text(text)
    with pytest.raises(ReleaseError, match=r"aliases\.json (is damaged|has schema version 9)"):
        ReleaseStore(tmp_path).list()
