"""Optuna's journal of a sweep: every trial, a line for each thing that happens to it."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from b3dist.errors import B3distError, RunError, StorageError
from b3dist.tuning.space import Params

STUDY: Final = "sweep"
BASELINE, ABANDONED, ERROR, SOURCE = "baseline", "abandoned", "error", "source"

State = Literal["complete", "pruned", "failed", "running", "waiting"]
_STATES: Final[Mapping[TrialState, State]] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What the study knows of a trial."""

    number: int
    state: State
    params: Params
    values: tuple[float, ...] | None
    """Macro F1, and with two objectives the error ratio; of a pruned trial its last report."""
    curve: Mapping[int, float]
    """Macro F1 by epoch; empty with two objectives, which Optuna keeps no curve of."""
    attributes: Mapping[str, Any]

    @property
    def is_baseline(self) -> bool:
        """Whether it has the starting values."""
        return bool(self.attributes.get(BASELINE))

    @property
    def was_abandoned(self) -> bool:
        """Whether its driver was killed while it ran."""
        return bool(self.attributes.get(ABANDONED))


def read_trials(journal: Path) -> list[TrialRecord]:
    """The trials in a journal, without writing to it.

    Raises:
        RunError: there is none, or it is damaged.
    """
    study = load_study(journal)
    with damage_said(journal):
        return [record_of(trial) for trial in study.get_trials(deepcopy=False)]


def load_study(journal: Path) -> optuna.Study:
    """The study in a journal, for Optuna's own plots.

    Raises:
        RunError: there is none, or it is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_journal(journal, writing=False)
    try:
        return optuna.load_study(study_name=STUDY, storage=storage)
    except KeyError as error:
        raise RunError(f"{journal} holds no study called {STUDY!r}", hint="start a new sweep") from error


def open_journal(path: Path, *, writing: bool) -> optuna.storages.JournalStorage:
    """Optuna's storage on a journal file.

    Before writing, a last line that a kill left incomplete is cut off, and the lock of a killed writer is removed: both
    need the run's lock, which the driver holds.

    Raises:
        RunError: absent where it is to be read, or damaged.
        StorageError: it cannot be read or written.
    """
    if writing:
        _cut_torn_line(path)
        Path(f"{path}.lock").unlink(missing_ok=True)
    elif not path.is_file():
        raise RunError(f"there is no {path}", hint="the sweep has not begun, or its folder is damaged")
    with damage_said(path):
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


@contextlib.contextmanager
def damage_said(path: Path) -> Iterator[None]:
    """Name a journal whose lines Optuna cannot replay: it says so with errors of many types.

    Raises:
        RunError: the journal is damaged.
        StorageError: it cannot be read or written.
    """
    try:
        yield
    except B3distError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read or write {path}: {error.strerror}", hint="then resume the sweep") from error
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error!r}", hint="start a new sweep") from error
    except optuna.exceptions.OptunaError as error:
        raise RunError(f"{path} is damaged: {error!r}", hint="start a new sweep") from error


def record_of(trial: FrozenTrial) -> TrialRecord:
    """What Optuna knows of a trial."""
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        params=dict(trial.params) or dict(trial.system_attrs.get("fixed_params", {})),
        values=tuple(trial.values) if trial.values is not None else None,
        curve=dict(trial.intermediate_values),
        attributes=dict(trial.user_attrs),
    )


def _cut_torn_line(path: Path) -> None:
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
