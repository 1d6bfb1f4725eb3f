"""An answer that cannot be shown: one sentence on stderr and exit code 1, whatever is wrong with it or with stdout."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from rich.console import Console

from b3dist.cli.output import Answer, answers
from tests.cli.conftest import Outcome

Command = Callable[..., Outcome]


@contextlib.contextmanager
def stdout_to(descriptor: int) -> Iterator[None]:
    """Point descriptor 1 elsewhere for a while."""
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    os.close(descriptor)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def unread_pipe() -> int:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_disk() -> int:
    """A file on which nothing can be written for want of space."""
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("words", [(), ("--json",)])
@pytest.mark.parametrize(("stdout", "why"), [(full_disk, "No space left"), (unread_pipe, "Broken pipe")])
def test_stdout_that_takes_nothing_is_said_in_a_sentence(
    b3dist: Command, tmp_path: Path, words: tuple[str, ...], stdout: Callable[[], int], why: str
) -> None:
    """Also where the answer would have been JSON: then stderr is all that is left."""
    with stdout_to(stdout()):
        outcome = b3dist("runs", "list", "--runs", tmp_path, *words)
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith(f"b3dist: cannot write the answer to stdout: {why}")
    assert "Traceback" not in outcome.stderr
    with stdout_to(stdout()):
        outcome = b3dist("runs", "status", "X", "--runs", tmp_path, *words)
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("b3dist: there is no run 'X'"), "the first error is the one to say"


@pytest.mark.parametrize("command", ["runs list --runs . >&-", "--version >/dev/full", "--help >/dev/full"])
def test_closed_stdout_is_said_in_a_sentence(tmp_path: Path, command: str) -> None:
    """As the shell closes it, before the interpreter starts; help and version fail alike."""
    program = f'"{sys.executable}" -c "from b3dist.cli.main import main; main()" {command}'
    ended = subprocess.run(program, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("b3dist: cannot write")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("json_output", [False, True])
def test_answer_that_cannot_be_shown_is_no_traceback(capfd: pytest.CaptureFixture[str], json_output: bool) -> None:
    """Half a table is not printed either."""

    def show(console: Console) -> None:
        console.print("half an answer")
        raise KeyError("metrics")

    @answers
    def verb(json_output: bool = False, debug: bool = False) -> Answer:
        return Answer(payload={"loss": float("nan")}, show=show)

    with pytest.raises(typer.Exit) as end:
        verb(json_output=json_output)
    captured = capfd.readouterr()
    assert end.value.exit_code == 1
    said = captured.out if json_output else captured.err
    assert "unexpected ValueError" in said if json_output else "unexpected KeyError: 'metrics'" in said
    assert "Traceback" not in captured.err
    assert "half an answer" not in captured.out
