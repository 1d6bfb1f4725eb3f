"""How a verb answers: one JSON object or a readable text on stdout, everything else on stderr, fixed exit codes."""

import contextlib
import functools
import json
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console

from b3dist.cli.interrupted import INTERRUPTED, raise_interrupts
from b3dist.errors import B3distError, StorageError

DONE, FAILED, USAGE, SOME_ASSETS_FAILED = 0, 1, 2, 3

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout; logs go to stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a verb returns: the JSON object, how to show it to a person, and the exit code."""

    payload: dict[str, Any]
    show: Callable[[Console], None] = field(default=lambda _console: None)
    exit_code: int = DONE


class Interrupted(B3distError):
    """Ctrl-C or SIGTERM; the hint says how to go on."""


def answers(verb: Callable[..., Answer]) -> Callable[..., None]:
    """Turn a function that takes `json_output` and `debug` and returns an Answer into a verb of the command line.

    stdout is kept for the answer: whatever a library prints meanwhile (Ray and MLflow do) goes to stderr.
    SIGTERM is treated as Ctrl-C, so that a verb's `finally` blocks run.
    """

    @functools.wraps(verb)
    def run(*args: Any, json_output: bool = False, debug: bool = False, **kwargs: Any) -> None:
        with _stdout_kept() as stdout:
            try:
                raise_interrupts()
                with _sigterm_as_interrupt():
                    answer = verb(*args, json_output=json_output, debug=debug, **kwargs)
                    _write(stdout, _rendered(answer, stdout, json_output))
            except typer.BadParameter:
                raise  # wrong usage: typer says what, and exits with 2
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  one sentence instead of a traceback
                _fail(_as_sentence(error), stdout, json_output, debug)
        raise typer.Exit(answer.exit_code)

    return run


def _as_sentence(error: BaseException) -> B3distError:
    """What to say of an error."""
    if isinstance(error, B3distError):
        return error
    if isinstance(error, KeyboardInterrupt):
        hint = str(error) or f"run again: {shlex.join(['b3dist', *sys.argv[1:]])}"
        return Interrupted(INTERRUPTED, hint=hint)
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        message = f"cannot read or write{where}: {error.strerror or error}"
        return B3distError(message, hint="check the path, its permissions and the free space")
    message = f"unexpected {type(error).__name__}: {error}"
    return B3distError(message, hint="run again with --debug and report the traceback")


def _rendered(answer: Answer, stdout: TextIO, json_output: bool) -> str:
    """The whole answer, before any of it is written."""
    if json_output:
        return json.dumps(answer.payload, allow_nan=False, default=str) + "\n"
    console = Console(file=stdout, highlight=False)
    with console.capture() as captured:
        answer.show(console)
    return captured.get()


def _write(stdout: TextIO, text: str) -> None:
    """Write all of it.

    Raises:
        StorageError: stdout is full, or nobody reads it any more.
    """
    try:
        stdout.write(text)
        stdout.flush()
    except OSError as error:
        raise StorageError(
            f"cannot write the answer to stdout: {error.strerror or error}",
            hint="what was asked for is done; only its answer could not be shown",
        ) from error


def _fail(error: B3distError, stdout: TextIO, json_output: bool, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc(file=sys.stderr)
    sentence = f"b3dist: {error.message}" + (f"\n  {error.hint}" if error.hint else "")
    try:
        if json_output:
            _write(stdout, json.dumps({"error": error.message, "hint": error.hint}) + "\n")
    except StorageError:
        json_output = False  # stdout takes nothing, so stderr gets what there is to say
    if not json_output:
        with contextlib.suppress(OSError):
            print(sentence, file=sys.stderr, flush=True)
    raise typer.Exit(FAILED)


@contextlib.contextmanager
def _stdout_kept() -> Iterator[TextIO]:
    """Point file descriptor 1 at stderr and yield a stream on the real stdout."""
    if sys.stdout is None:  # closed by the caller: nothing else may get its number, and writing must fail
        os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
    else:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # no descriptor 1 (an embedded interpreter)
        yield sys.stdout
        return
    os.dup2(2, 1)
    stream = os.fdopen(kept, "w", encoding="utf-8", closefd=False)
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):  # what could not be written was said
            stream.close()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
