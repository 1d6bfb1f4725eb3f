"""Run verbs as the console script does: exit code, and what reached the file descriptors of stdout and stderr."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from b3dist.cli.verbs import app


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        answer: dict[str, Any] = json.loads(self.stdout)
        return answer


@pytest.fixture
def b3dist(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call with the words of a command line, `b3dist` itself left out."""

    def run(*words: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            app([str(word) for word in words])
        captured = capfd.readouterr()
        code = end.value.code
        return Outcome(exit_code=code if isinstance(code, int) else 0, stdout=captured.out, stderr=captured.err)

    return run


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the machine's GPUs, if it has any."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
