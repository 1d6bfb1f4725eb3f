"""Do something to a folder of releases again and again, killed with SIGKILL one change of a file later each time.

    python -m tests.release.killed_at ACTION RUNS/RUN_ID RELEASES

One JSON line per attempt on stdout: {"before": the operation it was killed before, null once it was not killed,
"releases": the releases that open afterwards, "aliases": ..., "hidden": what else lies in the folder}.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from b3dist.release import ReleaseStore, create_release, promote, rollback
from b3dist.run_folder import RunFolder

OPERATIONS = ("open", "fcntl.flock", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir")


def act(action: str, run: Path, releases: Path) -> None:
    """Create a release of the run, promote the newest one, or roll back."""
    store = ReleaseStore(releases)
    if action == "create":
        create_release(store, RunFolder.open(run.parent, run.name))
    elif action == "promote":
        promote(store, store.ids()[0], margin=100)
    elif store.resolve("champion") == store.ids()[0]:  # not yet
        rollback(store)


def killed_after(count: int, folder: Path, do: Callable[[], None]) -> str | None:
    """Do it in a fork that dies before its operation number `count` in the folder; which operation that was."""
    told, tell = os.pipe()
    if (child := os.fork()) == 0:
        seen = 0

        def die(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            if not _changes(event, args, folder):
                return
            if seen == count:
                os.write(tell, f"{event} {Path(str(args[0])).name}".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

        sys.addaudithook(die)
        do()
        os._exit(0)
    os.close(tell)
    _, status = os.waitpid(child, 0)
    with os.fdopen(told) as pipe:
        before = pipe.read()
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if before else 0)
    return before or None


def _changes(event: str, args: tuple[Any, ...], folder: Path) -> bool:
    """Whether an audited operation is to change something in the folder: what only reads is left out."""
    if event not in OPERATIONS or (event != "fcntl.flock" and str(folder) not in str(args[0])):
        return False
    return event != "open" or bool(args[2] & (os.O_WRONLY | os.O_RDWR))


def observe(releases: Path) -> dict[str, Any]:
    """What a reader finds: every listed release is opened, hence verified."""
    store = ReleaseStore(releases)
    return {
        "releases": [store.open(release_id).release_id for release_id in store.ids()],
        "aliases": store.aliases(),
        "hidden": sorted(path.name for path in releases.glob(".*")),
    }


def main() -> None:
    """Attempt until one is not killed."""
    action, run, releases = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]).resolve()
    count = 0
    while True:
        before = killed_after(count, releases, lambda: act(action, run, releases))
        sys.stdout.write(json.dumps({"before": before, **observe(releases)}) + "\n")
        sys.stdout.flush()
        if before is None:
            return
        count += 1


if __name__ == "__main__":
    main()
