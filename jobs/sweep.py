"""Search hyperparameters as a Ray job; the options are those of `b3dist sweep`.

From the repository's root (`.git`, `.venv` and what .gitignore and .rayignore name are not uploaded):

    export RAY_AUTH_MODE=token
    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
        python jobs/sweep.py --lake /shared/lake --runs /shared/runs --trials 40 --json

Lake and runs must lie on storage that every node sees. The job attaches to the cluster it was submitted to.
"""

import sys
from pathlib import Path

import typer

# A job's script finds its own folder, not the one above, and the nodes need not have b3dist installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from b3dist.cli.sweep import sweep


def main() -> None:
    """Run the verb as a program of its own."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(sweep)
    app()


if __name__ == "__main__":
    main()
