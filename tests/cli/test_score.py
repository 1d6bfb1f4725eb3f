"""`b3dist score`: the contract's keys and columns, one day or a range, and usage errors that say what to do."""

import os
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from b3dist.data.cotahist import read_cotahist, write_cotahist
from b3dist.data.lake import Lake, ingest
from b3dist.distributed.score import part_path, plan_scores, write_part
from b3dist.release import Release
from tests.cli.conftest import Outcome
from tests.release.releases import make_release

CONTRACT = ["ticker", "session", "action", "p_buy", "p_sell", "p_hold", "return_pred", "price", "price_pred"]
CONTRACT += ["release_id", "model_sha256"]


@pytest.fixture(scope="module")
def released(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release of three assets, beside its runs."""
    return make_release(small_lake, tmp_path_factory.mktemp("score"), tickers=["SIMA3", "SIMA4", "SIMC3"])


@pytest.fixture
def score(
    b3dist: Callable[..., Outcome], released: Release, small_lake: Path, tmp_path: Path
) -> Callable[..., Outcome]:
    """Call `score` with further words; releases are found beside the runs."""
    runs = released.path.parents[1] / "runs"
    common = ("--lake", small_lake, "--runs", runs, "--release", released.release_id, "--out", tmp_path / "out.parquet")
    return lambda *words: b3dist("score", *common, *words)


def test_a_range_is_written_with_the_contracts_columns(score: Callable[..., Outcome], released: Release) -> None:
    """JSON holds rows, seconds, path and what was left out; the file begins with the contract's columns."""
    answer = score("--history", "2018-01-01:2018-12-31", "--json").answer
    table = pq.read_table(answer["path"])
    assert table.column_names[: len(CONTRACT)] == CONTRACT
    assert answer["rows"] == len(table) > 300
    assert answer["seconds"] > 0 and answer["release_id"] == released.release_id
    assert (answer["assets"], answer["skipped"], answer["left_out"]) == (3, [], {})
    assert {str(session)[:4] for session in table["session"].to_pylist()} == {"2018"}
    assert 0 < answer["in_sample"] == sum(table["in_sample"].to_pylist()) < len(table)
    said = f"{answer['in_sample']} of {len(table)} rows lie in the part their model was trained on"
    assert said in score("--history", "2018-01-01:2018-12-31").stdout


def test_one_day_and_some_tickers(score: Callable[..., Outcome]) -> None:
    """--as-of a Sunday means the Friday before; tickers may be written small; people see a table."""
    outcome = score("--as-of", "2018-06-17", "--tickers", "sima4,SIMC3")
    assert outcome.exit_code == 0 and "rows" in outcome.stdout
    table = pq.read_table(outcome.stdout.split()[-1])
    assert table["ticker"].to_pylist() == ["SIMA4", "SIMC3"]
    assert {str(session) for session in table["session"].to_pylist()} == {"2018-06-15"}


@pytest.mark.parametrize(
    "words",
    [("--as-of", "2000-01-01"), ("--history", "2000-01-01:2001-01-01"), ("--history", "2030-01-01:2031-01-01")],
)
def test_nothing_to_score_leaves_the_old_file(
    score: Callable[..., Outcome], small_lake: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """A day or a range outside of the lake: one sentence with the lake's first and last session, nothing written."""
    (tmp_path / "out.parquet").write_bytes(b"before")
    calendar = Lake(small_lake).calendar()
    outcome = score(*words, "--json")
    assert outcome.exit_code == 1
    assert f"the lake has sessions from {calendar[0]} to {calendar[-1]}" in outcome.answer["error"]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.parquet", b"before")]


def test_an_early_day_says_what_is_missing(score: Callable[..., Outcome], small_lake: Path, tmp_path: Path) -> None:
    """A session of the lake at which no asset has a window yet: exit code 1, why, and the old file stays."""
    (tmp_path / "out.parquet").write_bytes(b"before")
    outcome = score("--as-of", str(Lake(small_lake).calendar()[40]), "--json")
    assert outcome.exit_code == 1
    assert "3 assets were skipped, SIMA3: SIMA3 has 41 sessions" in outcome.answer["error"]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.parquet", b"before")]


def test_the_answer_names_the_session(score: Callable[..., Outcome], small_lake: Path) -> None:
    """as_of is the session a day came to mean; a day past the newest is noted; a range names both ends."""
    newest = str(Lake(small_lake).calendar()[-1])
    answer = score("--as-of", "2018-06-17", "--json").answer
    assert (answer["as_of"], answer["history"], answer["note"]) == ("2018-06-15", None, None)
    assert score("--json").answer["as_of"] == newest
    late = score("--as-of", "2031-01-01")
    assert f"as of      {newest}" in late.stdout
    assert f"note: 2031-01-01 is past the lake's newest session, {newest}" in late.stdout
    assert "history    2018-01-01 to 2018-06-30" in score("--history", "2018-01-01:2018-06-30").stdout


def test_stale_rows_are_counted_and_can_be_left_out(
    b3dist: Callable[..., Outcome], small_lake: Path, tmp_path: Path
) -> None:
    """An asset that stopped trading weeks before the newest session: a plain line, or skipped with the reason."""
    calendar = Lake(small_lake).calendar()
    (tmp_path / "files").mkdir()
    for path in sorted((small_lake.parent / "files").glob("*.ZIP")):
        records = read_cotahist(path)
        gone = (records["ticker"] == "SIMA3") & (records["session"] > pd.Timestamp(calendar[-15]))
        write_cotahist(tmp_path / "files" / path.name, records[~gone], generated=calendar[-1].astype(date))
    ingest([tmp_path / "files"], tmp_path / "lake")
    release = make_release(tmp_path / "lake", tmp_path, tickers=["SIMA3", "SIMA4"])
    words = ["score", "--lake", tmp_path / "lake", "--runs", tmp_path / "runs", "--release", release.release_id]
    words += ["--out", tmp_path / "out.parquet"]
    assert "1 of 2 rows are stale: assets that have not traded for more than 5 sessions" in b3dist(*words).stdout
    answer = b3dist(*words, "--no-stale", "--json").answer
    assert (answer["rows"], answer["stale"], answer["assets"]) == (1, 0, 2)
    assert [entry["ticker"] for entry in answer["skipped"]] == ["SIMA3"]
    assert answer["skipped"][0]["reason"].startswith("stale: ")
    assert pq.read_table(tmp_path / "out.parquet")["ticker"].to_pylist() == ["SIMA4"]
    refused = b3dist(*words, "--no-stale", "--history", "2018-01-01:2018-06-30")
    assert refused.exit_code == 2
    assert "a history has no stale rows" in refused.stderr
    (tmp_path / "parts").mkdir()
    write_part(plan_scores(release, Lake(tmp_path / "lake"), span=None, keep_stale=False), tmp_path / "parts", 0)
    assert pq.read_table(part_path(tmp_path / "parts", 0))["ticker"].to_pylist() == ["SIMA4"]


def test_what_a_killed_score_left_is_removed(score: Callable[..., Outcome], tmp_path: Path) -> None:
    """Only of the same file, and only where the process is gone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = {name: tmp_path / f".{name}.tmp" for name in (f"out.parquet.{gone.pid}", f"out.parquet.{os.getppid()}")}
    other = tmp_path / f".other.parquet.{gone.pid}.tmp"
    for path in (*left.values(), other):
        path.write_bytes(b"half")
    assert score("--as-of", "2018-06-15").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "out.parquet", f".out.parquet.{os.getppid()}.tmp", other.name
    }  # fmt: skip


def test_an_out_that_no_file_can_be_written_at(
    b3dist: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing, a folder or a path below a file: one sentence, before anything is opened."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"before")
    for out, said in (("", "is a folder"), (".", "is a folder"), ("file/x", "which is a file and no folder")):
        outcome = b3dist("score", "--out", out, "--json")
        assert outcome.exit_code == 1 and said in outcome.answer["error"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--history", "2018"), "expected FROM:TO"),
        (("--history", "2018-02-01:2018-01-01"), "ends before it begins"),
        (("--tickers", "NOPE3"), "no model of NOPE3"),
        (("--tickers", ""), "names no ticker"),
        (("--release", "champion"), "champion"),
    ],
)
def test_wrong_words_are_one_clear_sentence(score: Callable[..., Outcome], words: tuple[str, ...], said: str) -> None:
    """Exit code 1 and a sentence; nothing is written."""
    outcome = score(*words, "--json")
    assert outcome.exit_code == 1
    assert said in outcome.answer["error"]


def test_a_day_and_a_range_exclude_each_other(score: Callable[..., Outcome]) -> None:
    """Both at once is wrong usage."""
    outcome = score("--history", "2018-01-01:2018-12-31", "--as-of", "2018-01-02")
    assert outcome.exit_code == 2
    assert "not both" in outcome.stderr
