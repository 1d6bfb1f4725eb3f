"""A journal that has lost what the ledger knows of is refused before anything is written into it."""

from pathlib import Path

import pytest

from b3dist.distributed.sweep.agreement import require_whole_journal
from b3dist.errors import RunError
from b3dist.tuning.journal import read_trials
from tests.distributed.sweeps import searched


def test_a_whole_journal_is_accepted(small_lake: Path, tmp_path: Path) -> None:
    """Also one that a kill left ahead of the ledger, or with a torn last line."""
    sweep = searched(small_lake, tmp_path)
    require_whole_journal(sweep)
    lines = sweep.run.ledger.read_bytes().splitlines(keepends=True)
    sweep.run.ledger.write_bytes(b"".join(lines[:-2]))
    with sweep.journal.open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"x","tri')
    require_whole_journal(sweep)


@pytest.mark.parametrize("lost", ["deleted", "emptied", "begun anew"])
def test_a_journal_that_is_gone_is_no_new_search(small_lake: Path, tmp_path: Path, lost: str) -> None:
    """The ledger tells of trials: going on would start from nothing without a word."""
    sweep = searched(small_lake, tmp_path / "sweep", trials=3)
    if lost == "deleted":
        sweep.journal.unlink()
    elif lost == "emptied":
        sweep.journal.write_bytes(b"")
    else:
        lines = sweep.journal.read_bytes().splitlines(keepends=True)
        sweep.journal.write_bytes(b"".join(lines[:3]))
    with pytest.raises(RunError, match=r"journal\.log (is gone or empty|has lost what it held)"):
        require_whole_journal(sweep)


def test_no_line_with_a_trials_parameters_or_ending_can_be_missing(small_lake: Path, tmp_path: Path) -> None:
    """Each line left out in turn: refused, or no settled trial has other parameters, another state or another value."""
    sweep = searched(small_lake, tmp_path, trials=4, per_asset=True)
    lines = sweep.journal.read_bytes().splitlines(keepends=True)
    whole = [(one.number, one.state, one.params, one.values) for one in read_trials(sweep.journal)]
    refused = 0
    for place in range(len(lines)):
        sweep.journal.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
        try:
            require_whole_journal(sweep)
        except RunError:
            refused += 1
        else:
            assert [(one.number, one.state, one.params, one.values) for one in read_trials(sweep.journal)] == whole
    assert refused > 4 * (4 + 1)  # four parameters and an ending of four trials, at least
