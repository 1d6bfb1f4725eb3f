"""What the command line says of Ctrl-C, also while it still imports; so this imports next to nothing itself."""

import os
import sys

# `signal` itself takes milliseconds (it makes enums) in which Ctrl-C would end in a traceback.
from _signal import SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]

INTERRUPTED = "interrupted; nothing half-written is left"
_HINT = "run the same command again"


def say_interrupts() -> None:
    """From now on Ctrl-C ends the process as it ends a verb: one sentence, an object with --json, exit code 1.

    By a handler of its own: KeyboardInterrupt in the middle of an import may come out as ImportError, or not at all.
    Where Ctrl-C is ignored, as in the background of a shell, it stays so.
    """
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, _end)


def raise_interrupts() -> None:
    """From now on Ctrl-C is KeyboardInterrupt again."""
    if getsignal(SIGINT) is _end:
        signal(SIGINT, default_int_handler)


def _end(_signum: int, _frame: object) -> None:
    """Nothing is imported here: what would be needed may be half imported, and so may be what a clean end runs."""
    try:
        if "--json" in sys.argv:
            os.write(1, f'{{"error": "{INTERRUPTED}", "hint": "{_HINT}"}}\n'.encode())
        else:
            os.write(2, f"b3dist: {INTERRUPTED}\n  {_HINT}\n".encode())
    finally:  # also where nobody reads it any more
        os._exit(1)
