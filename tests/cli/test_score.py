"""`b3dist score`: the contract's keys and columns, one day or a range, and usage errors that say what to do."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

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


def test_an_early_day_says_who_was_skipped(score: Callable[..., Outcome]) -> None:
    """No row is no failure: the answer says what each asset lacks."""
    outcome = score("--as-of", "2000-01-01", "--json")
    assert outcome.exit_code == 0
    assert outcome.answer["rows"] == 0
    assert {(entry["needed"], entry["found"]) for entry in outcome.answer["skipped"]} == {(51, 0)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--history", "2018"), "expected FROM:TO"),
        (("--history", "2018-02-01:2018-01-01"), "ends before it begins"),
        (("--tickers", "NOPE3"), "no model of NOPE3"),
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
