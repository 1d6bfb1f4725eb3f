"""The help of every verb."""

from collections.abc import Callable

import pytest

from tests.cli.conftest import Outcome

VERBS = ("demo", "simulate", "download", "ingest", "check", "train", "report", "fleet")
VERBS_OF_RUNS = ("runs list", "runs status", "runs prune")


@pytest.mark.parametrize("verb", [*VERBS, *VERBS_OF_RUNS])
def test_every_verb_shows_an_example(b3dist: Callable[..., Outcome], verb: str) -> None:
    """The help ends with a command that can be copied; no option is described by a Python type."""
    done = b3dist(*verb.split(), "--help")
    assert done.exit_code == 0
    assert f"Example: b3dist {verb}" in done.stdout
    assert "list[" not in done.stdout.partition("Options:")[2]
