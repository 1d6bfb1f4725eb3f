"""Bulk scores equal single ones, are written whole or not at all, and say what they left out."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from b3dist.data.lake import Lake
from b3dist.errors import StorageError
from b3dist.release import Release
from b3dist.scoring import Scorer
from b3dist.scoring.bulk import score_day, score_span, write_scores
from b3dist.scoring.table import SCORES
from tests.scoring.test_scorer import numbers

ALWAYS = (date(1990, 1, 1), date(2100, 1, 1))


def test_history_is_what_each_day_would_have_said(
    scorer: Scorer, release: Release, small_lake: Path, tmp_path: Path
) -> None:
    """Every row of a history file equals scoring that session on its own; whole histories hold every usable window."""
    totals = write_scores(tmp_path / "scores.parquet", score_span(release, Lake(small_lake), ALWAYS))
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.schema.equals(SCORES) and len(table) == totals.rows
    assert totals.assets == 6 and not totals.skipped and totals.stale == 0
    assert totals.rows + sum(totals.left_out.values()) == len(Lake(small_lake).all_bars(["session"]))
    for ticker in scorer.tickers:
        of_ticker = table.filter(pc.equal(table["ticker"], ticker))
        sessions = of_ticker["session"].to_pylist()
        assert sessions == sorted(set(sessions))
        chosen = list(range(0, len(sessions), 7))
        alone = scorer.score([scorer.locate(ticker, sessions[row]) for row in chosen])
        np.testing.assert_allclose(numbers(of_ticker.take(chosen)), numbers(alone), rtol=0, atol=1e-6)
        assert scorer.history(ticker, *ALWAYS).equals(of_ticker.combine_chunks())


def test_a_file_does_not_depend_on_threads(release: Release, small_lake: Path, tmp_path: Path) -> None:
    """One thread or three, twice the same: the same bytes."""
    span = (date(2018, 1, 1), date(2018, 6, 30))
    contents = set()
    for run, threads in enumerate((1, 3, 3)):
        path = tmp_path / f"{run}.parquet"
        write_scores(path, score_span(release, Lake(small_lake), span, threads=threads))
        contents.add(path.read_bytes())
    assert len(contents) == 1
    sessions = pq.read_table(tmp_path / "0.parquet")["session"].to_pylist()
    assert span[0] <= min(sessions) and max(sessions) <= span[1]


def test_one_day_is_what_the_scorer_says(scorer: Scorer, release: Release, small_lake: Path, tmp_path: Path) -> None:
    """`score_day` writes the scorer's own table, of the tickers asked for."""
    day = scorer.calendar[-20].astype(object)
    totals = write_scores(
        tmp_path / "day.parquet", score_day(release, Lake(small_lake), as_of=day, tickers=["SIMA4", "SIMA3"])
    )
    expected = scorer.score([scorer.locate(ticker, day) for ticker in ("SIMA3", "SIMA4")])
    assert pq.read_table(tmp_path / "day.parquet").equals(expected)
    assert (totals.rows, totals.assets) == (2, 2)


def test_what_has_no_window_is_said(release: Release, small_lake: Path, tmp_path: Path) -> None:
    """A range before any window gives an empty file and a reason for every asset."""
    lake = Lake(small_lake)
    span = (date(1990, 1, 1), lake.calendar()[49].astype(object))
    totals = write_scores(tmp_path / "early.parquet", score_span(release, lake, span))
    assert totals.rows == 0 == len(pq.read_table(tmp_path / "early.parquet"))
    assert [skipped.ticker for skipped in totals.skipped] == list(release.assets)
    assert all("50 warm_up" in skipped.reason for skipped in totals.skipped)
    assert totals.left_out == {"warm_up": 300}


def test_a_failure_leaves_nothing_behind(release: Release, small_lake: Path, tmp_path: Path) -> None:
    """An error half way keeps an older file as it was and leaves no other; no folder is a StorageError."""
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"before")

    def breaks() -> object:
        yield next(iter(score_span(release, Lake(small_lake), ALWAYS)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scores(path, breaks())
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.parquet"]
    assert path.read_bytes() == b"before"
    with pytest.raises(StorageError, match="cannot write"):
        write_scores(path / "below.parquet", score_span(release, Lake(small_lake), ALWAYS))
