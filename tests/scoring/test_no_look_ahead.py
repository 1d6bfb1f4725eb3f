"""A score of a day sees nothing later than that day: a lake that ends there gives the same."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from b3dist.data.cotahist import read_cotahist, write_cotahist
from b3dist.data.features import INPUT_COLUMNS
from b3dist.data.lake import Lake, ingest
from b3dist.data.simulator import simulate
from b3dist.errors import DataError
from b3dist.release import Release
from b3dist.scoring import Scorer
from b3dist.scoring.bulk import score_span, write_scores
from tests.release.releases import make_release
from tests.scoring.test_scorer import numbers

SPLIT = "SIMA3"
"""Splits 2:1 at session 332 of 400, long after its anchor."""
EARLY_SPLIT = "SIMA4"
"""Of the small lake: gives a bonus of 1 in 10 at session 200, before its anchor."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six assets, one of which splits."""
    folder = tmp_path_factory.mktemp("events")
    simulate(folder / "files", assets=6, sessions=400, seed=6)
    return folder / "files"


@pytest.fixture(scope="module")
def lake(files: Path) -> Lake:
    """All of it."""
    ingest([files], files.parent / "lake")
    return Lake(files.parent / "lake")


@pytest.fixture(scope="module")
def released(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Trained on all of it."""
    return make_release(lake.path, tmp_path_factory.mktemp("released"))


def truncated(files: Path, last: date, folder: Path) -> Lake:
    """A lake of the same files without what happened after a day."""
    folder.mkdir()
    for path in sorted(files.glob("*.ZIP")):
        records = read_cotahist(path)
        records = records[records["session"] <= pd.Timestamp(last)]
        if len(records):
            write_cotahist(folder / path.name, records, generated=last)
    ingest([folder], folder / "lake")
    return Lake(folder / "lake")


def same(one: pa.Table, other: pa.Table) -> None:
    """Two tables of scores agree: who, when and at which price exactly, the model's numbers within 1e-6."""
    facts = ["ticker", "session", "action", "price", "model_sha256", "age_sessions", "stale"]
    assert one.select(facts).equals(other.select(facts))
    np.testing.assert_allclose(numbers(one), numbers(other), rtol=0, atol=1e-6)


@pytest.mark.parametrize("row", [300, 331, 332, 380])
def test_a_lake_that_ends_there_scores_the_same(
    files: Path, lake: Lake, released: Release, tmp_path: Path, row: int
) -> None:
    """Any day from the anchors on, before and after a later split: as_of on the whole lake is the truncated lake."""
    day = lake.calendar()[row].astype(object)
    assert max(asset.served.anchor for asset in released.assets.values()) <= day
    short = truncated(files, day, tmp_path / "files")
    assert (SPLIT in set(short.events()["ticker"])) == (row >= 332)
    whole_scorer, short_scorer = Scorer(released, lake), Scorer(released, short)
    whole, skipped = whole_scorer.score_all(None, day)
    seen, also_skipped = short_scorer.score_all()
    same(seen, whole)
    assert also_skipped == skipped  # SIME3 was halted for weeks around the split
    assert len(whole) >= 5 and SPLIT in whole["ticker"].to_pylist()
    assert set(whole["session"].to_pylist()) == {day}
    for ticker in (SPLIT, "SIMB11"):
        ever = date(1990, 1, 1)
        same(short_scorer.history(ticker, ever, day), whole_scorer.history(ticker, ever, day))


def test_a_later_split_does_not_move_a_models_inputs(
    lake: Lake, files: Path, released: Release, tmp_path: Path
) -> None:
    """The very inputs of the day before the split are the same whether the split is known or not."""
    day = lake.calendar()[331].astype(object)
    short = truncated(files, day, tmp_path / "files")
    assert lake.bars(SPLIT, ["adjustment"])["adjustment"].iloc[331] == 0.5
    assert short.bars(SPLIT, ["adjustment"])["adjustment"].iloc[331] == 1.0
    known, unknown = (Scorer(released, one).locate(SPLIT, day) for one in (lake, short))
    np.testing.assert_allclose(known.rows, unknown.rows, rtol=0, atol=1e-6)
    assert known.price == unknown.price


def test_a_day_before_the_anchor_is_scored_at_the_anchors_basis(
    small_lake: Path, release: Release, scorer: Scorer
) -> None:
    """Before a share event that lies before the anchor prices are divided by it, as in training; price is as traded."""
    lake, model = Lake(small_lake), release.assets[EARLY_SPLIT].served
    day = lake.calendar()[150].astype(object)
    assert day < model.anchor
    bars = lake.bars(EARLY_SPLIT, ["close", "adjustment"])
    assert bars["adjustment"].iloc[150] == pytest.approx(1 / 1.1)
    window = scorer.locate(EARLY_SPLIT, day)
    assert window.price == bars["close"].iloc[150]
    close = window.rows[-1, -1] * model.scaler.scale[-1] + model.scaler.mean[-1]  # feature set v1 ends with the close
    assert close == pytest.approx(window.price / 1.1, rel=1e-5)
    assert len(scorer.score([window])) == 1


def test_a_lake_that_ends_before_the_anchor_is_refused(small_lake: Path, release: Release, tmp_path: Path) -> None:
    """It lacks a bonus that lies before the anchor: every way of scoring names both days, none gives a number."""
    day, anchor = Lake(small_lake).calendar()[150].astype(object), release.assets[EARLY_SPLIT].served.anchor
    short = truncated(small_lake.parent / "files", day, tmp_path / "files")
    said = f"the lake ends on {day}, before {EARLY_SPLIT}'s anchor {anchor}: its price basis is unknown"
    scorer = Scorer(release, short)
    for as_of in (None, day, date(2099, 1, 1)):
        with pytest.raises(DataError, match=said):
            scorer.locate(EARLY_SPLIT, as_of)
    ever = (date(1990, 1, 1), day)
    with pytest.raises(DataError, match=said):
        scorer.history(EARLY_SPLIT, *ever)
    bars = Lake(small_lake).bars(EARLY_SPLIT, ["session", *INPUT_COLUMNS])
    columns = {name: bars[name].to_numpy() for name in bars}
    with pytest.raises(DataError, match=said):
        scorer.window_of_bars(EARLY_SPLIT, columns, adjusted=True, whole_history=True)
    table, skipped = scorer.score_all()
    assert not len(table) and said in {one.reason for one in skipped}
    totals = write_scores(tmp_path / "scores.parquet", score_span(release, short, ever))
    assert totals.rows == 0 and said in {one.reason for one in totals.skipped}


def test_real_files_and_a_later_real_split(shared_data: Path, tmp_path: Path) -> None:
    """MGLU3 splits 8:1 in September 2017: parity with its predictions, and the lake of 2012-2016 scores the same."""
    paths = sorted((shared_data / "cotahist").glob("COTAHIST_A*.ZIP"))
    ingest(paths, tmp_path / "lake")
    ingest([path for path in paths if path.name < "COTAHIST_A2017"], tmp_path / "short")
    lake, short = Lake(tmp_path / "lake"), Lake(tmp_path / "short")
    events = lake.events()
    assert len(events[(events["ticker"] == "MGLU3") & (events["ex_date"] > "2017-01-01")])
    release = make_release(tmp_path / "lake", tmp_path, tickers=["MGLU3", "OGXP3", "PETR4"])
    scorer = Scorer(release, lake)
    for ticker in release.assets:
        predicted = release.predictions(ticker)
        sessions = predicted["session"].to_pylist()
        scores = scorer.score([scorer.locate(ticker, session) for session in sessions])
        np.testing.assert_allclose(numbers(scores), numbers(predicted), rtol=0, atol=1e-6)
    day = short.calendar()[-1].astype(object)
    for ticker in ("MGLU3", "PETR4"):
        assert release.assets[ticker].served.anchor < day
        same(Scorer(release, short).score_all([ticker])[0], scorer.score_all([ticker], day)[0])
