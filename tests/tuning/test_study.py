"""The search: trial 0 first, the same suggestions after a kill as without one, bad trials recorded, nothing lost."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from b3dist.config import Config
from b3dist.tuning.journal import TrialRecord, load_study, read_trials
from b3dist.tuning.scores import CohortScore
from b3dist.tuning.space import Params, search_space
from b3dist.tuning.study import Search, SearchSettings, Suggestion

SPACE = search_space(Config())
PEAK = np.array([0.3, 0.6, 0.4, 0.7])


def settings(**changes: object) -> SearchSettings:
    content = {"space": SPACE, "start": SPACE.start(Config()), "budget": 14, "epochs": 9, "seed": 5, **changes}
    return SearchSettings(**content)  # type: ignore[arg-type]


def height(params: Params) -> float:
    return 1.0 - float(np.square(SPACE.to_unit(params) - PEAK).sum())


def score(value: float) -> CohortScore:
    return CohortScore(macro_f1=value, error_ratio=2.0 - value)


def run_trial(search: Search, suggestion: Suggestion) -> None:
    """Nine epochs, or fewer if the study says stop."""
    for epoch in range(1, 10):
        current = score(height(suggestion.params) * epoch / 9)
        stop = search.report(suggestion.number, epoch, current) and epoch < 9
        if stop:
            break
    search.tell(suggestion.number, current, pruned=stop, attributes={"epochs": epoch})


def run_all(search: Search, act: Callable[[Search, Suggestion], None] = run_trial) -> list[TrialRecord]:
    while (suggestion := search.ask()) is not None:
        act(search, suggestion)
    return search.records()


def test_trial_0_has_the_starting_values_and_is_never_stopped() -> None:
    """However bad they are: there must be something to beat."""
    poor = settings(start={**SPACE.start(Config()), "loss.gamma": 6.0, "model.dropout": 0.0})
    records = run_all(Search(poor))
    assert records[0].params == poor.start
    assert records[0].is_baseline
    assert records[0].state == "complete"
    assert [record.is_baseline for record in records[1:]] == [False] * 13


def test_hopeless_trials_are_stopped_and_told_apart() -> None:
    """At a third of the epochs; a stopped trial is pruned in Optuna's eyes, not complete."""
    records = run_all(Search(settings()))
    stopped = [record for record in records if record.state == "pruned"]
    assert 1 <= len(stopped) <= 12
    assert {record.attributes["epochs"] for record in stopped} == {3}
    assert {record.attributes["epochs"] for record in records if record.state == "complete"} == {9}


def test_the_same_seed_gives_the_same_trials_and_another_seed_others() -> None:
    """In memory and in a journal alike."""
    first, second, other = (run_all(Search(settings(seed=seed))) for seed in (5, 5, 6))
    assert [record.params for record in first] == [record.params for record in second]
    assert [record.params for record in first][1:] != [record.params for record in other][1:]


def test_first_suggestions_do_not_depend_on_how_many_run_at_once() -> None:
    """Ten of them look at no result: one at a time or five at a time, they are the same."""
    one = [record.params for record in run_all(Search(settings()))][:10]
    search, many = Search(settings()), []
    for _ in range(2):
        batch = [suggestion for _ in range(5) if (suggestion := search.ask())]
        many += [suggestion.params for suggestion in batch]
        for suggestion in batch:
            run_trial(search, suggestion)
    assert one == many


def test_suggestions_asked_together_keep_apart() -> None:
    """Once results are looked at, trials that begin at once differ more if each is told of the others."""
    nearest = {}
    for together in (False, True):
        distances = []
        for seed in range(4):
            search = Search(settings(seed=seed, budget=40, halving=False))
            for _ in range(20):
                suggestion = search.ask()
                assert suggestion is not None
                run_trial(search, suggestion)
            batch = [one for _ in range(8) if (one := search.ask(together=together))]
            points = np.array([SPACE.to_unit(one.params) for one in batch])
            apart = np.abs(points[:, None] - points).max(axis=2) + 9 * np.eye(len(points))
            distances.append(apart.min(axis=1).mean())
        nearest[together] = float(np.mean(distances))
    assert nearest[True] > nearest[False]


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_search_goes_on_as_an_unbroken_one(tmp_path: Path, torn: bool) -> None:
    """What ran is marked failed and begun again under the same values; a line cut off by the kill does no harm."""
    unbroken = run_all(Search(settings()))
    journal = tmp_path / "journal.log"
    killed = Search(settings(), journal)
    for _ in range(6):
        suggestion = killed.ask()
        assert suggestion is not None
        run_trial(killed, suggestion)
    lost = killed.ask()
    assert lost is not None
    killed.report(lost.number, 1, score(0.5))
    if torn:
        with journal.open("ab") as file:
            file.write(b'{"op_code":8,"worker_id":"x","tri')
    Path(f"{journal}.lock").symlink_to(journal)  # the killed writer held Optuna's lock
    resumed = Search(settings(), journal)
    records = run_all(resumed)
    abandoned = [record for record in records if record.was_abandoned]
    assert [record.number for record in abandoned] == [lost.number]
    assert abandoned[0].state == "failed"
    rest = [record for record in records if not record.was_abandoned]
    assert [(record.params, record.values) for record in rest] == [
        (record.params, record.values) for record in unbroken
    ]
    assert "running" not in {record.state for record in read_trials(journal)}
    assert len(load_study(journal).trials) == 15


@pytest.mark.parametrize("lines_lost", [1, 2, 4])
@pytest.mark.parametrize("trials_before", [0, 3, 12])
def test_a_kill_in_the_middle_of_a_suggestion_changes_nothing(
    tmp_path: Path, trials_before: int, lines_lost: int
) -> None:
    """The journal gets a suggestion value by value: with some of them missing it is made anew, the same as before."""
    unbroken = run_all(Search(settings()))
    journal = tmp_path / "journal.log"
    killed = Search(settings(), journal)
    for _ in range(trials_before):
        suggestion = killed.ask()
        assert suggestion is not None
        run_trial(killed, suggestion)
    assert killed.ask() is not None
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-lines_lost]))
    records = run_all(Search(settings(), journal))
    rest = [record for record in records if not record.was_abandoned]
    assert [(record.params, record.values) for record in rest] == [
        (record.params, record.values) for record in unbroken
    ]
    assert rest[0].is_baseline


def test_a_killed_trial_0_is_begun_again_as_trial_0() -> None:
    """The baseline is not lost with its driver."""
    records: list[TrialRecord] = []

    def check(folder: Path) -> None:
        search = Search(settings(), folder)
        first = search.ask()
        assert first is not None
        again = Search(settings(), folder).ask()
        assert again is not None
        assert again.params == first.params
        records.extend(read_trials(folder))

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder) / "journal.log")
    assert [record.is_baseline for record in records] == [True, True]
    assert [record.was_abandoned for record in records] == [True, False]


def test_bad_trials_are_recorded_and_do_not_end_the_search() -> None:
    """An error, and a score that is no number; both count as trials."""

    def act(search: Search, suggestion: Suggestion) -> None:
        if suggestion.number == 3:
            search.fail(suggestion.number, "PETR4 diverged at epoch 1")
        elif suggestion.number == 4:
            search.tell(suggestion.number, score(float("nan")), pruned=False, attributes={})
        else:
            run_trial(search, suggestion)

    records = run_all(Search(settings()), act)
    assert len(records) == 14
    assert [record.state for record in records[3:5]] == ["failed", "failed"]
    assert records[3].attributes["error"] == "PETR4 diverged at epoch 1"
    assert "nan" in records[4].attributes["error"]


def test_two_objectives_are_searched_together() -> None:
    """Every trial has both values, and none is stopped early."""
    records = run_all(Search(settings(two_objectives=True)))
    assert {record.state for record in records} == {"complete"}
    assert all(record.values is not None and len(record.values) == 2 for record in records)


def test_the_surface_finds_a_smooth_peak_that_sampling_only_comes_near_to() -> None:
    """The last trials of a larger budget are where a quadratic through the better ones peaks."""
    records = run_all(Search(settings(budget=60, halving=False)))
    last = [record for record in records if record.attributes["source"] == "surface"]
    assert last
    assert min(float(np.abs(SPACE.to_unit(record.params) - PEAK).max()) for record in last) < 0.01
