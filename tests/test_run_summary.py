"""summary.json with a field of the wrong kind: every reader says which, and what writes the file again."""

import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from b3dist.cli.sweep_answer import sweep_answer
from b3dist.distributed.fleet.watch import told_mlflow
from b3dist.distributed.run_list import list_runs, run_status
from b3dist.distributed.sweep.outcome import finished_summary
from b3dist.errors import RunError
from b3dist.release.build import collect_run, why_untrained
from b3dist.report import write_report
from b3dist.run_folder import RunFolder
from b3dist.run_summary import FLEET, read_summary
from tests.distributed.sweeps import concluded, searched
from tests.report.run_builder import make_run
from tests.report.test_pooled_view import pooled_run


def put(path: Path, content: object) -> None:
    """Replace a run's summary.json."""
    (path / "summary.json").write_text(json.dumps(content))


def damaged(content: Any, *, below: tuple[str | int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each field of a summary.json (of lists the first entry) by name, and the whole with that one of another kind."""
    value = content
    for name in below:
        value = value[name]
    if below:
        damage = copy.deepcopy(content)
        inner = damage
        for name in below[:-1]:
            inner = inner[name]
        inner[below[-1]] = "x" if isinstance(value, dict | list) else [3]
        yield "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in below).lstrip("."), damage
    fields: list[str | int] = (
        list(value) if isinstance(value, dict) else [0] if isinstance(value, list) and value else []
    )
    for name in fields:
        yield from damaged(content, below=(*below, name))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"totals": 3}', "totals must be an object, got 3"),
        ('{"assets": "x"}', 'assets must be a list, got "x"'),
        ('{"assets": [{"ticker": "PETR4"}]}', "assets[0].state is missing"),
        ('{"assets": [{"ticker": "PETR4", "state": "failed", "error": 3}]}', "error must be a text or null, got 3"),
        ('{"totals": {"trained": true}}', "totals.trained must be a number, got true"),
        ('{"totals": {"trained": 1e999}}', "totals.trained must be a number, got Infinity"),
        ('{"totals": {"trained": NaN}}', "NaN is no number of JSON"),
        ("[]", "the whole must be an object, got []"),
        ("[" * 100_000, "recursion"),
        ("{", "Expecting property name"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    """With the file, and the command that writes it again."""
    run = tmp_path / "R"
    run.mkdir()
    (run / "summary.json").write_text(content)
    with pytest.raises(RunError) as caught:
        read_summary(run, "fleet", FLEET)
    assert caught.value.message.startswith(f"{run / 'summary.json'} is damaged: ")
    assert said in caught.value.message
    assert f"b3dist fleet --resume R --runs {tmp_path} writes it again" in caught.value.hint


def test_a_run_that_has_not_ended_has_none(tmp_path: Path) -> None:
    """Neither a damaged one nor an error."""
    assert read_summary(tmp_path, "fleet", FLEET) is None


@pytest.mark.parametrize("kind", ["fleet", "pooled"])
def test_a_damaged_summary_of_assets_is_named_on_the_page(tmp_path: Path, kind: str) -> None:
    """Whichever field it is: the page is written, says so, and calls the run finished, as its ledger does."""
    run = pooled_run(tmp_path) if kind == "pooled" else make_run(tmp_path, failed=[("OGXP3", "diverged")])
    good = json.loads((run / "summary.json").read_text())
    good["assets"] = [{"ticker": "OGXP3", "state": "failed", "reason": None, "error": "diverged"}]
    put(run, good)
    problems: list[str] = []
    write_report(tmp_path, run.name, on_problem=problems.append)
    assert not problems
    cases = dict(damaged(good))
    for field, content in cases.items():
        put(run, content)
        page = write_report(tmp_path, run.name, on_problem=problems.append).read_text(encoding="utf-8")
        (problem,) = problems
        assert f"summary.json is damaged: {field} must be" in problem, field
        assert f"b3dist {kind} --resume {run.name} --runs {tmp_path} writes it again" in problem
        assert "summary.json is damaged" in page
        assert "stopped before its end" not in page
        assert told_mlflow(RunFolder.open(tmp_path, run.name)) is None, "so it is logged, and the file written, again"
        problems.clear()
    assert len(cases) > 10


def test_a_release_is_not_made_of_a_run_with_a_damaged_summary(tmp_path: Path) -> None:
    """It could not say why assets are missing; of a run that was killed and has none it says that it does not know."""
    run = make_run(tmp_path, failed=[("OGXP3", "diverged")])
    put(run, {"assets": [{"ticker": "OGXP3", "state": "failed", "error": {}}]})
    with pytest.raises(RunError, match=r"summary\.json is damaged: assets\[0\]\.error must be"):
        collect_run(RunFolder.open(tmp_path, run.name))
    (run / "summary.json").unlink()
    (missing,) = why_untrained(RunFolder.open(tmp_path, run.name), ["OGXP3"])
    assert missing == {"ticker": "OGXP3", "state": "unknown", "reason": ""}


@pytest.mark.parametrize("two_objectives", [False, True])
def test_a_damaged_summary_of_a_sweep_is_named(small_lake: Path, tmp_path: Path, two_objectives: bool) -> None:
    """By everything that reads it, whichever field it is; a resumed sweep writes it again."""
    sweep = concluded(searched(small_lake, tmp_path, two_objectives=two_objectives), adopted=not two_objectives)
    run, told = sweep.run, set()
    assert finished_summary(sweep) is not None
    for field, content in damaged(json.loads((run.path / "summary.json").read_text())):
        put(run.path, content)
        try:
            run_status(tmp_path, run.run_id)
            found = finished_summary(sweep)
            assert found is not None
            sweep_answer(sweep, found).show(Console(file=io.StringIO()))
        except RunError as error:
            told.add(field)
            assert f"{run.path / 'summary.json'} is damaged: {field} must be" in error.message
            assert f"b3dist sweep --resume {run.run_id} --runs {tmp_path} --max-hours 0 writes it again" in error.hint
            assert [one.state for one in list_runs(tmp_path)] == ["damaged"]
            assert finished_summary(sweep) is None
    read = {
        "run_id",
        "state",
        "stopped",
        "totals.wall_seconds",
        "best.params",
        "verdict.reason",
        "finalists[0].mean",
        "trials",
    }
    assert told > {*read, "trials[0].params.model.dropout", "trials[0].values", "pareto_front"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"verdict": None}, "best is given and verdict null of a sweep that is finished"),
        ({"best": None, "verdict": None}, "best is null and verdict null of a sweep that is finished"),
        ({"best": {"params": {"x": 1}, "value": 1, "trial": 1, "adopted": True}}, "best.params must name"),
        ({"pareto_front": [1]}, "pareto_front names trials of a sweep with one objective"),
        ({"choices": [{"ticker": "A", "number": 1, "share": 0, "noise": 0}]}, "asset_verdict null"),
    ],
)
def test_parts_of_a_sweeps_summary_must_agree(
    small_lake: Path, tmp_path: Path, damage: dict[str, Any], said: str
) -> None:
    """What each has the right kind may still be of no use together."""
    sweep = concluded(searched(small_lake, tmp_path), adopted=True)
    put(sweep.run.path, {**json.loads((sweep.run.path / "summary.json").read_text()), **damage})
    with pytest.raises(RunError, match=said):
        run_status(tmp_path, sweep.run.run_id)
    with pytest.raises(RunError, match=said):
        write_report(tmp_path, sweep.run.run_id)


def test_the_pareto_front_names_trials_with_scores(small_lake: Path, tmp_path: Path) -> None:
    """A number that no trial has is damage."""
    sweep = concluded(searched(small_lake, tmp_path, two_objectives=True), adopted=False)
    put(sweep.run.path, {**json.loads((sweep.run.path / "summary.json").read_text()), "pareto_front": [99]})
    with pytest.raises(RunError, match="pareto_front names trial 99, which has no values"):
        run_status(tmp_path, sweep.run.run_id)
