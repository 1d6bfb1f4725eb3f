"""Optuna's journal of a sweep: what it cannot be read from says which file it is."""

from pathlib import Path

import pytest

from b3dist.config import Config
from b3dist.errors import RunError
from b3dist.tuning.journal import load_study, read_trials
from b3dist.tuning.space import search_space
from b3dist.tuning.study import Search, SearchSettings

SPACE = search_space(Config())
SETTINGS = SearchSettings(space=SPACE, start=SPACE.start(Config()), budget=14, epochs=9, seed=5)


def test_an_absent_or_damaged_journal_is_refused(tmp_path: Path) -> None:
    """With the file's name."""
    with pytest.raises(RunError, match=r"journal\.log"):
        read_trials(tmp_path / "journal.log")
    (tmp_path / "other.log").write_text("no journal\n[]\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"other\.log is damaged"):
        read_trials(tmp_path / "other.log")
    (tmp_path / "empty.log").touch()
    with pytest.raises(RunError, match=r"empty\.log holds no study"):
        load_study(tmp_path / "empty.log")


@pytest.mark.parametrize("line", ["{}", "[1]", '{"op_code":99,"worker_id":"x"}', '{"op_code":5,"trial_id":77}', "x"])
@pytest.mark.parametrize("place", [0, 5, None])
def test_a_line_that_is_none_of_optunas_is_called_damage(tmp_path: Path, line: str, place: int | None) -> None:
    """Wherever it stands: a search is not begun on it, and reading it says so; only a bad last line may be ignored."""
    journal = tmp_path / "journal.log"
    search = Search(SETTINGS, journal)
    assert search.ask() is not None
    lines = journal.read_text(encoding="utf-8").splitlines()
    lines.insert(len(lines) if place is None else place, line)
    journal.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if not (line == "x" and place is None):
        with pytest.raises(RunError, match=r"journal\.log is damaged"):
            read_trials(journal)
    with pytest.raises(RunError, match=r"journal\.log is damaged"):
        Search(SETTINGS, journal)
