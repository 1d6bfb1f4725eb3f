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

from b3dist.errors import B3distError

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
                with _sigterm_as_interrupt():
                    answer = verb(*args, json_output=json_output, debug=debug, **kwargs)
            except KeyboardInterrupt as interrupt:
                hint = str(interrupt) or f"run again: {shlex.join(['b3dist', *sys.argv[1:]])}"
                _fail(Interrupted("interrupted; nothing half-written is left", hint=hint), stdout, json_output, debug)
            except typer.BadParameter:
                raise  # wrong usage: typer says what, and exits with 2
            except B3distError as error:
                _fail(error, stdout, json_output, debug)
            except OSError as error:
                where = f" {error.filename}" if error.filename else ""
                message = f"cannot read or write{where}: {error.strerror or error}"
                _fail(
                    B3distError(message, hint="check the path, its permissions and the free space"),
                    stdout,
                    json_output,
                    debug,
                )
            except Exception as error:  # noqa: BLE001  the last resort: one sentence instead of a traceback
                message = f"unexpected {type(error).__name__}: {error}"
                _fail(
                    B3distError(message, hint="run again with --debug and report the traceback"),
                    stdout,
                    json_output,
                    debug,
                )
            if json_output:
                print(json.dumps(answer.payload, allow_nan=False, default=str), file=stdout, flush=True)
            else:
                answer.show(Console(file=stdout, highlight=False))
                stdout.flush()
        raise typer.Exit(answer.exit_code)

    return run


def _fail(error: B3distError, stdout: TextIO, json_output: bool, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc(file=sys.stderr)
    if json_output:
        print(json.dumps({"error": error.message, "hint": error.hint}), file=stdout, flush=True)
    else:
        remedy = f"\n  {error.hint}" if error.hint else ""
        print(f"b3dist: {error.message}{remedy}", file=sys.stderr, flush=True)
    raise typer.Exit(FAILED)


@contextlib.contextmanager
def _stdout_kept() -> Iterator[TextIO]:
    """Point file descriptor 1 at stderr and yield a stream on the real stdout."""
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
        stream.flush()
        os.dup2(kept, 1)
        stream.close()
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
