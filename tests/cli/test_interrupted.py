"""Ctrl-C before a verb has begun: what is imported first is slow, and stands in for all that is."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SLOW_IMPORT = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(20)
raise SystemExit("Ctrl-C was not heard")
"""


def interrupted_while_importing(folder: Path, *words: str, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    """The command, which gets SIGINT as soon as it imports typer."""
    (folder / "typer.py").write_text(SLOW_IMPORT if not ignored else SLOW_IMPORT.replace("20", "0"), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "b3dist", *words],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL),
    )


@pytest.mark.parametrize("words", [("runs", "list"), ("--help",)])
def test_interrupt_while_importing_is_one_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    """As a verb says it, with its exit code, and at once."""
    ended = interrupted_while_importing(tmp_path, *words)
    said = "b3dist: interrupted; nothing half-written is left\n  run the same command again\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", said)


def test_interrupt_while_importing_is_one_object(tmp_path: Path) -> None:
    """With --json."""
    ended = interrupted_while_importing(tmp_path, "runs", "list", "--json")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert json.loads(ended.stdout) == {
        "error": "interrupted; nothing half-written is left",
        "hint": "run the same command again",
    }


def test_interrupt_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As in the background of a shell."""
    ended = interrupted_while_importing(tmp_path, "runs", "list", ignored=True)
    assert ended.stderr.strip() == "Ctrl-C was not heard"


def test_a_verb_is_interrupted_by_an_exception_again(tmp_path: Path) -> None:
    """So that what it began is ended properly, and its hint names the command."""
    program = """
import os, signal
from b3dist.cli import verbs
from b3dist.cli.main import main
from b3dist.distributed import run_list
run_list.list_runs = lambda runs: os.kill(os.getpid(), signal.SIGINT)
main()
"""
    words = [sys.executable, "-c", program, "runs", "list", "--runs", str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 1
    assert ended.stderr.endswith(
        f"interrupted; nothing half-written is left\n  run again: b3dist runs list --runs {tmp_path}\n"
    )
