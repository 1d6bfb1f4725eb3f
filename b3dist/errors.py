"""Every error b3dist raises on purpose.

B3distError              message says what, where, expected and got; `hint` says what to do
├── ConfigError          a setting is unknown, out of range or contradicts another
├── DataError            (also a ValueError) data from outside is not what it must be
│   ├── FormatError      a COTAHIST file breaks the official layout
│   ├── LakeError        a lake is absent, damaged or of another version
│   ├── BadBarError      a value of a caller's bars is impossible; says whose, which field, which row
│   ├── UnknownTickerError      no model of that ticker
│   └── InsufficientDataError   an asset cannot be trained or scored: skipped by rule, not failed
│       └── TooFewSessionsError     a window needs more sessions than there are; says how many of each
├── DownloadError        B3's address did not deliver the file
├── RunError             a run is absent, damaged or in use
│   └── SourceGoneError     what a run's models start from is not there any more: the run must stop
├── ReleaseError         a release is absent, damaged or may not be promoted
├── ServingError         the endpoint cannot be started
├── StorageError         a file could not be written (disk full, not writable)
└── TrainingError        fitting an asset failed (diverged)
"""

import traceback
from pathlib import Path


class B3distError(Exception):
    """Base of all errors meant for the user: one clear sentence, and what to do about it.

    Args:
        message: what went wrong, where, what was expected and what was found.
        hint: what the user can do; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders in Ray; the default reduce would drop the keyword-only hint.
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(cls: type[B3distError], message: str, hint: str) -> B3distError:
    return cls(message, hint=hint)


class ConfigError(B3distError):
    """A setting is unknown, out of range or contradicts another."""


class DataError(B3distError, ValueError):
    """Data from outside is not what it must be."""


class FormatError(DataError):
    """A COTAHIST file breaks the official layout; the message names file, line and field."""


class LakeError(DataError):
    """A lake is absent, damaged or of another version."""


class InsufficientDataError(DataError):
    """An asset cannot be trained or scored: it is skipped by rule and does not count as failed."""


class UnknownTickerError(DataError):
    """There is no model of that ticker."""


class BadBarError(DataError):
    """A value of a caller's bars is impossible.

    Args:
        message: what it is, and what was expected.
        ticker: whose bar.
        field: its column.
        row: from 0.
        hint: what the user can do.
    """

    def __init__(self, message: str, *, ticker: str, field: str, row: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.ticker = ticker
        self.field = field
        self.row = row

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_bad_bar, (self.message, self.ticker, self.field, self.row, self.hint)


def _rebuild_bad_bar(message: str, ticker: str, field: str, row: int, hint: str) -> BadBarError:
    return BadBarError(message, ticker=ticker, field=field, row=row, hint=hint)


class TooFewSessionsError(InsufficientDataError):
    """A window needs more sessions than there are.

    Args:
        message: what lacks sessions.
        needed: sessions without a gap that one window takes, warm-up included.
        found: sessions there are.
        hint: what the user can do.
    """

    def __init__(self, message: str, *, needed: int, found: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.needed = needed
        self.found = found

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_too_few, (self.message, self.needed, self.found, self.hint)


def _rebuild_too_few(message: str, needed: int, found: int, hint: str) -> TooFewSessionsError:
    return TooFewSessionsError(message, needed=needed, found=found, hint=hint)


class DownloadError(B3distError):
    """B3's address did not deliver the file."""


class RunError(B3distError):
    """A run is absent, damaged or in use."""


class SourceGoneError(RunError):
    """What a run's models start from is not there any more: no asset can be trained as it was asked to."""


class ReleaseError(B3distError):
    """A release is absent, damaged or may not be promoted."""


class ServingError(B3distError):
    """The endpoint cannot be started."""


class StorageError(B3distError):
    """A file could not be written: disk full, not writable."""


class TrainingError(B3distError):
    """Fitting an asset failed."""


def describe_failure(error: Exception) -> str:
    """As `describe_error`, and what to do about it: for a record that nothing else explains."""
    hint = error.hint if isinstance(error, B3distError) else ""
    return f"{describe_error(error)}; {hint}" if hint else describe_error(error)


def describe_error(error: Exception) -> str:
    """One line for a record: the message of one of these errors; of another its type, message and innermost place."""
    if isinstance(error, B3distError):
        return error.message
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def describe_damage(error: BaseException) -> str:
    """What is wrong with a file's content, by what reading it raised: a KeyError's text only names what is missing."""
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)
