"""`b3dist simulate` as a user runs it."""

from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Outcome


def test_json_names_the_files(b3dist: Callable[..., Outcome], tmp_path: Path) -> None:
    """One JSON object with files, assets and sessions; the files are there."""
    done = b3dist("simulate", tmp_path / "sim", "--assets", 2, "--sessions", 120, "--seed", 1, "--json")
    assert done.exit_code == 0
    assert (done.answer["assets"], done.answer["sessions"]) == (2, 120)
    assert [Path(path).name for path in done.answer["files"]] == ["COTAHIST_A2018.ZIP"]
    assert all(Path(path).is_file() for path in [*done.answer["files"], done.answer["truth"]])


def test_readable_answer_says_what_comes_next(b3dist: Callable[..., Outcome], tmp_path: Path) -> None:
    """Without --json the answer is text that names the folder and the next command."""
    done = b3dist("simulate", tmp_path / "sim", "--assets", 1, "--sessions", 100)
    assert done.exit_code == 0
    assert "1 assets x 100 sessions" in done.stdout
    assert "b3dist ingest" in done.stdout
    assert "--lake simlake" in done.stdout


def test_foreign_folder_exits_1_with_a_remedy(b3dist: Callable[..., Outcome], tmp_path: Path) -> None:
    """A folder with other files is refused in one sentence, as JSON if wanted."""
    (tmp_path / "notes.txt").write_text("mine")
    done = b3dist("simulate", tmp_path, "--json")
    assert done.exit_code == 1
    assert "'notes.txt'" in done.answer["error"]
    assert done.answer["hint"]


def test_wrong_option_exits_2(b3dist: Callable[..., Outcome]) -> None:
    """A number that is none is wrong usage."""
    assert b3dist("simulate", "out", "--assets", "many").exit_code == 2


def test_places_and_sizes_that_cannot_be_are_refused(b3dist: Callable[..., Outcome], tmp_path: Path) -> None:
    """More sessions than days, and a link that leads to itself, are one sentence each."""
    done = b3dist("simulate", tmp_path / "market", "--sessions", 1_000_000, "--json")
    assert done.exit_code == 1
    assert "at most" in done.answer["error"]
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = b3dist("simulate", tmp_path / "loop", "--json")
    assert done.exit_code == 1
    assert "loop" in done.answer["error"]
    assert "unexpected" not in done.answer["error"]
