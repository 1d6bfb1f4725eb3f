"""Scores in parts on a cluster: the same numbers as in one process, whatever is killed on the way."""

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.distributed import score as scoring
from b3dist.distributed.score import drive_scores, part_path, plan_scores, write_part
from b3dist.errors import ConfigError, LakeError, RunError
from b3dist.release import Release
from b3dist.scoring.bulk import score_span
from b3dist.scoring.history import Span
from tests.distributed.runs import contents
from tests.release.releases import make_release

SPAN: Span = (date(2018, 1, 1), date(2018, 12, 31))


@pytest.fixture(scope="module")
def released(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release of the six assets of the small lake."""
    return make_release(small_lake, tmp_path_factory.mktemp("parts"))


def test_finished_parts_stay_and_the_rest_is_the_same(released: Release, small_lake: Path, tmp_path: Path) -> None:
    """A folder that holds all parts needs no cluster; it is what one process writes; its manifest adds up."""
    plan = plan_scores(released, Lake(small_lake), span=SPAN, tickers_per_part=2)
    assert [len(part) for part in plan.parts] == [2, 2, 2]
    out = tmp_path / "scores"
    out.mkdir()
    for number in range(3):
        write_part(plan, out, number)
    (out / ".part-00001.parquet.1.tmp").write_bytes(b"left by a killed task")
    manifest = drive_scores(plan, out, address="nobody answers here")
    table = pa.concat_tables([pq.read_table(part_path(out, number)) for number in range(3)])
    alone = pa.concat_tables([scored.table for scored in score_span(released, Lake(small_lake), SPAN)])
    assert table.equals(alone)
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert manifest["rows"] == len(table) == sum(part["rows"] for part in manifest["parts"])
    assert (manifest["assets"], manifest["release_id"]) == (6, released.release_id)
    assert {path.name for path in out.iterdir()} == {
        ".lock", "plan.json", "manifest.json", *(f"part-{number:05}.parquet" for number in range(3))
    }  # fmt: skip


def test_a_folder_of_something_else_is_refused(released: Release, small_lake: Path, tmp_path: Path) -> None:
    """Another range, other tickers or another lake: named, and nothing is touched; a held folder as well."""
    lake, out = Lake(small_lake), tmp_path / "scores"
    plan = plan_scores(released, lake, span=SPAN, tickers=["SIMA3"])
    out.mkdir()
    write_part(plan, out, 0)
    drive_scores(plan, out)
    before = contents(out)
    for other, differs in (
        (plan_scores(released, lake, span=(SPAN[0], date(2018, 12, 30)), tickers=["SIMA3"]), "span"),
        (plan_scores(released, lake, span=SPAN, tickers=["SIMA4"]), "parts"),
        (plan_scores(released, lake, span=None, tickers=["SIMA3"]), "as_of, span"),
    ):
        with pytest.raises(ConfigError, match=f"something else: {differs} differ"):
            drive_scores(other, out)
    assert contents(out) == before
    with scoring._locked(out), pytest.raises(RunError, match="another job is writing"):
        drive_scores(plan, out)


def test_a_lake_that_changed_meanwhile_is_refused(released: Release, tmp_path: Path) -> None:
    """A task that finds another lake than was planned with writes nothing."""
    for sessions in (400, 402):
        simulate(tmp_path / str(sessions), assets=6, sessions=sessions, seed=7)
    ingest([tmp_path / "400"], tmp_path / "lake")
    plan = plan_scores(released, Lake(tmp_path / "lake"), span=SPAN)
    ingest([tmp_path / "402"], tmp_path / "lake")
    with pytest.raises(LakeError, match="has changed"):
        write_part(plan, tmp_path, 0)
    assert not part_path(tmp_path, 0).exists()
