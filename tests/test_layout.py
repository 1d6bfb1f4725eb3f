"""How the tree is laid out and installed: readable, as CONTRIBUTING.md asks, and found from anywhere."""

import subprocess
import sys
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


def test_a_folder_of_the_same_name_is_not_the_package(tmp_path: Path) -> None:
    """Beside a clone, in the folder that holds it, `import b3dist` finds the installed package and not the clone."""
    (tmp_path / "b3dist" / "b3dist").mkdir(parents=True)
    words = [sys.executable, "-c", "import b3dist; print(b3dist.__version__)"]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
