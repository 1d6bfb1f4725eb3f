"""What a fleet came to, for a person: its mean scores beside what costs nothing, and what to do next."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from b3dist.errors import RunError

_MEASURES = (
    ("macro F1", "macro_f1", "majority_macro_f1", "most frequent action", False),
    ("return error (MAE)", "return_mae", "persistence_return_mae", "no change", True),
)


def show_result(console: Console, path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Means over the trained assets' test parts, what warm starts began from and gained, and the report's command.

    Args:
        console: where to.
        path: the run's folder.
        entries: the assets of summary.json.
    """
    from b3dist.distributed.fleet.starts import Starts

    scored = [entry["metrics"] for entry in entries if entry["state"] == "trained" and entry["metrics"]]
    if not scored:
        return
    table = Table(title=f"means over the test parts of {len(scored)} assets", title_justify="left", box=None)
    for heading in ("", "model", "baseline", "", "better in"):
        table.add_column(heading, justify="right" if heading in ("model", "baseline") else "left")
    for name, own, other, costless, less_is_better in _MEASURES:
        pairs = [(one[own], one[other]) for one in scored if one[own] is not None and one[other] is not None]
        better = sum(model < free if less_is_better else model > free for model, free in pairs)
        means = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        table.add_row(name, *(f"{mean:.4f}" for mean in means), costless, f"{better} of {len(pairs)}")
    console.print(table)
    try:
        starts = Starts.of_run(path)
    except RunError as error:  # the run is done: what is damaged is said, and is no failure of it
        console.print(f"what it started from cannot be told: {error.message}", markup=False, soft_wrap=True)
    else:
        for told in () if starts is None else (starts.in_words(), starts.gains_in_words()):
            if told is not None:
                console.print(told, markup=False, soft_wrap=True)
    command = ["b3dist", "report", path.name, "--runs", str(path.parent)]
    console.print(f"next: {shlex.join(command)}", markup=False, soft_wrap=True)
