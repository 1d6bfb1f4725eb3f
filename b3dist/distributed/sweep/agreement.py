"""A sweep's journal and its ledger tell of the same trials: the journal first, then the ledger."""

import time

from b3dist.distributed.ledger import Ledger
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.distributed.sweep.status import trial_states
from b3dist.errors import RunError
from b3dist.tuning.journal import TrialRecord, read_trials
from b3dist.tuning.study import Search

_SETTLED = ("complete", "pruned", "failed")


def require_whole_journal(sweep: SweepFolder) -> None:
    """Refuse a journal that has lost trials, or parts of them, which the ledger knows of.

    Raises:
        RunError: it has, or either file is damaged.
    """
    told = trial_states(sweep.run.path)
    if not told:
        return
    if not sweep.journal.is_file() or not sweep.journal.stat().st_size:
        raise _damaged(sweep, f"is gone or empty, but the ledger tells of {len(told)} trials")
    records = {record.number: record for record in read_trials(sweep.journal)}
    for number, state in told.items():
        if (missing := _missing(records.get(number), state, sweep)) is not None:
            raise _damaged(sweep, f"has lost what it held: trial {number}, which is {state} in the ledger, {missing}")


def tell_ledger(search: Search, ledger: Ledger, sweep: SweepFolder) -> None:
    """Add what a killed driver told the journal and no longer the ledger."""
    told = trial_states(sweep.run.path)
    for record in search.records():
        state = "abandoned" if record.was_abandoned else record.state
        if record.state != "waiting" and told.get(record.number) != state:
            ledger.append("trial", number=record.number, state=state, time=round(time.time(), 3))


def _missing(record: TrialRecord | None, state: str, sweep: SweepFolder) -> str | None:
    """What the journal lacks of a trial; None: nothing."""
    if record is None:
        return "is not there"
    if state not in _SETTLED:  # a kill may have come before anything else was told
        return None
    if record.state != state:
        return f"is {record.state}"
    if set(record.params) != set(sweep.plan.space.names):
        return f"has only the parameters {', '.join(record.params) or 'none'}"
    if sweep.plan.per_asset and state == "complete" and "assets" not in record.attributes:
        return "has no scores by asset"
    return None


def _damaged(sweep: SweepFolder, what: str) -> RunError:
    return RunError(f"{sweep.journal} {what}", hint="put the file back as it was, or start a new sweep")
