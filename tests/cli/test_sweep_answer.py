"""What `b3dist sweep` answers, from a sweep's folder; no Ray."""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from b3dist.cli.options import build_config
from b3dist.cli.sweep_answer import sweep_answer
from b3dist.distributed.sweep.folder import SweepFolder
from b3dist.tuning.finalists import pareto_front
from b3dist.tuning.journal import read_trials
from tests.distributed.sweeps import aged, concluded, searched


def answer(sweep: SweepFolder) -> tuple[dict[str, Any], str]:
    """The JSON object, and what a person reads on a narrow terminal."""
    summary = json.loads((sweep.run.path / "summary.json").read_text(encoding="utf-8"))
    found = sweep_answer(sweep, {**summary, "engine": "single"})
    console = Console(file=io.StringIO(), width=100)
    found.show(console)
    assert isinstance(console.file, io.StringIO)
    return found.payload, console.file.getvalue()


def test_the_held_out_table_puts_winner_trial_0_and_what_costs_nothing_side_by_side(
    small_lake: Path, tmp_path: Path
) -> None:
    """Both scores and the actions called, for a person and in JSON; beside them what was true."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=True)
    payload, shown = answer(sweep)
    assert payload["conclusion"] == "better"
    names = [one["name"] for one in payload["held_out"]]
    assert names == ["the winner", "trial 0", "always hold, no change"]
    for one in payload["held_out"]:
        (line,) = [line for line in shown.splitlines() if line.startswith(f" {one['name']} ")]
        assert f"{one['macro_f1']:.4f}" in line
        assert f"{one['error_ratio']:.4f}" in line
    (true,) = [line for line in shown.splitlines() if line.startswith(" true ")]
    assert true.split() == ["true", "360", "0", "2,700"]
    assert "return error ratio" in payload["verdict"]


def test_a_winner_below_always_hold_is_told_plainly(small_lake: Path, tmp_path: Path) -> None:
    """best.yaml holds it, as it beats trial 0; the answer does not call it better than nothing."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=True, found=2)
    payload, shown = answer(sweep)
    assert payload["best"]["adopted"] is True
    assert payload["conclusion"] == "better than trial 0 only"
    assert "yet worse than always hold" in shown


def test_few_events_are_warned_of(small_lake: Path, tmp_path: Path) -> None:
    """Those of the held-out assets, which the verdict rests on."""
    payload, shown = answer(concluded(searched(small_lake, tmp_path), adopted=False))
    assert any("360 buys, 0 sells, 2,700 holds" in one for one in payload["warnings"])
    assert "warning: the test parts judged on hold" in shown


def test_a_sweep_of_an_older_version_still_answers(small_lake: Path, tmp_path: Path) -> None:
    """With the verdict it came to; what was not compared then is left out."""
    sweep = aged(concluded(searched(small_lake, tmp_path), adopted=True))
    payload, shown = answer(sweep)
    assert (payload["conclusion"], payload["held_out"], payload["warnings"]) == (None, [], [])
    assert payload["verdict"] in shown


def test_every_trial_of_the_front_is_listed_with_its_configuration(small_lake: Path, tmp_path: Path) -> None:
    """In JSON and for a person; the file is what `fleet --recipe-file` takes. Finalists and trial 0 have one too."""
    sweep = concluded(searched(small_lake, tmp_path, two_objectives=True), adopted=False)
    payload, shown = answer(sweep)
    records = {one.number: one for one in read_trials(sweep.journal)}
    front = [one.number for one in pareto_front(list(records.values()))]
    assert [one["trial"] for one in payload["pareto_front"]] == front
    for one in payload["pareto_front"]:
        expected = sweep.plan.space.apply(sweep.config, records[one["trial"]].params)
        assert build_config("card", recipe_file=Path(one["recipe"])) == expected
        (line,) = [line for line in shown.splitlines() if line.startswith(f" trial {one['trial']} ")]
        assert f"{one['macro_f1']:.4f}" in line
        assert f"{one['error_ratio']:.4f}" in line
    written = {int(path.stem) for path in (sweep.run.path / "trials").iterdir()}
    finalists = {one["number"] for one in json.loads((sweep.run.path / "summary.json").read_text())["finalists"]}
    assert written == {0, *front, *finalists}
    assert "/trials/NNN.yaml, NNN one of 000, " in shown
    assert build_config("card", recipe_file=sweep.recipe_of(0)) == sweep.config
