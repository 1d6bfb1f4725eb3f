"""What keeps the tree readable, as CONTRIBUTING.md asks: checked, since nobody counts."""

from pathlib import Path

MOST_LINES = 400


def test_no_file_is_too_long() -> None:
    """A module that has grown beyond 400 lines tells more than one story."""
    root = Path(__file__).resolve().parents[1]
    files = [path for folder in ("b3dist", "bench", "jobs", "serve", "tests") for path in (root / folder).rglob("*.py")]
    assert len(files) > 100
    long = {
        str(path.relative_to(root)): lines
        for path in files
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long
