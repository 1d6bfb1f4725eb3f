"""Entry point of the `b3dist` command: what takes time to import comes after Ctrl-C is handled."""

import sys

from b3dist.cli.interrupted import say_interrupts


def main() -> None:
    """Run the command line; a verb handles Ctrl-C itself as soon as it begins."""
    say_interrupts()
    from b3dist.cli.verbs import app

    try:
        app()
    except OSError as error:  # of --help and --version; verbs say it themselves
        sys.exit(f"b3dist: cannot write to stdout: {error.strerror or error}")
