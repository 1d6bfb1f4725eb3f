"""`b3dist train`: one asset without Ray, and what is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome

Command = Callable[..., Outcome]

TICKER = "SIMA3"


@pytest.fixture
def train(b3dist: Command, small_lake: Path, tmp_path: Path) -> Command:
    """Call `train` with further words, on the small lake and into a folder of the test."""
    return lambda *words: b3dist("train", *words, "--lake", small_lake, "--out", tmp_path)


def test_the_verb_prints_one_json_object(train: Command) -> None:
    """`train --json` answers with asset, metrics and path on stdout and nothing else."""
    outcome = train(TICKER, "--recipe", "smoke", "--set", "training.epochs=1", "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.answer["asset"] == TICKER
    assert math.isfinite(outcome.answer["metrics"]["test"]["accuracy"])
    assert json.loads((Path(outcome.answer["path"]) / "metrics.json").read_text()) == outcome.answer["metrics"]


@pytest.mark.usefixtures("no_gpu")
def test_a_precision_that_is_not_there_is_refused(train: Command, tmp_path: Path) -> None:
    """`train --precision tf32` on a CPU fails with what to ask for instead, and writes nothing."""
    outcome = train(TICKER, "--recipe", "smoke", "--precision", "tf32", "--json")
    assert outcome.exit_code == 1
    assert outcome.answer["hint"] == "--precision fp32 or bf16"
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_there_is_said_before_training(train: Command, tmp_path: Path) -> None:
    """`train` into a folder that holds the asset ends at once, and leaves what is there."""
    (tmp_path / TICKER).mkdir()
    outcome = train(TICKER, "--set", "training.epochs=100000", "--json")
    assert outcome.exit_code == 1
    assert "exists already" in outcome.answer["error"]
    assert [path.name for path in tmp_path.iterdir()] == [TICKER]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["XXXX3"], 1, "XXXX3"),
        ([TICKER, "--set", "training.epoch=1"], 1, "training.epochs"),
        ([TICKER, "--recipe", "carte"], 1, "card, outcome, smoke"),
        ([TICKER, "--epochs", "3"], 2, "No such option"),
    ],
)
def test_wrong_arguments_get_one_sentence(train: Command, words: list[str], code: int, message: str) -> None:
    """Unknown tickers, settings, recipes and options are named; there is no traceback."""
    outcome = train(*words)
    assert outcome.exit_code == code
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
