"""The help of every verb."""

from collections.abc import Callable

import pytest

from tests.cli.conftest import Outcome

VERBS = (
    "demo",
    "simulate",
    "download",
    "ingest",
    "check",
    "train",
    "report",
    "fleet",
    "pooled",
    "sweep",
    "score",
    "serve",
)
VERBS_OF_RUNS = ("runs list", "runs status", "runs prune")
VERBS_OF_RELEASES = ("release create", "release promote", "release rollback", "release list", "release show")


@pytest.mark.parametrize("verb", [*VERBS, *VERBS_OF_RUNS, *VERBS_OF_RELEASES])
def test_every_verb_shows_an_example(b3dist: Callable[..., Outcome], verb: str) -> None:
    """The help ends with a command that can be copied; no option is described by a Python type."""
    done = b3dist(*verb.split(), "--help")
    assert done.exit_code == 0
    assert f"Example: b3dist {verb}" in done.stdout
    assert "list[" not in done.stdout.partition("Options:")[2]
    assert "%Y" not in done.stdout


def test_help_says_what_the_verbs_do(b3dist: Callable[..., Outcome]) -> None:
    """The first sentence speaks of what the verbs below it do, and all of them are listed."""
    text = b3dist("--help").stdout
    assert "Train, tune, release and serve one LSTM multi-task model for every asset of B3" in " ".join(text.split())
    listed = {line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.strip()}
    assert {*VERBS, "runs", "release"} <= listed
