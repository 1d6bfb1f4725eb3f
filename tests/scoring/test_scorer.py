"""Scores of a release: what was evaluated is what is served, and no window's score depends on its company."""

import dataclasses
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from b3dist.data.lake import Lake
from b3dist.errors import TooFewSessionsError, UnknownTickerError
from b3dist.release import Release
from b3dist.scoring import Scorer, Window
from b3dist.scoring.table import SCORES

NUMBERS = ("p_buy", "p_sell", "p_hold", "return_pred")


def numbers(table: pa.Table) -> np.ndarray:
    """The model's part of a table of scores: (rows, 4)."""
    return np.column_stack([table[name].to_numpy() for name in NUMBERS])


def windows_of(scorer: Scorer, per_ticker: int) -> list[Window]:
    """The newest windows of every ticker, tickers alternating."""
    days = scorer.calendar[-per_ticker:].astype(object)
    return [scorer.locate(ticker, day) for day in days for ticker in scorer.tickers]


def test_serving_gives_what_was_evaluated(scorer: Scorer, release: Release) -> None:
    """For every asset the score of every validation and test window is its row of predictions.parquet."""
    for ticker in scorer.tickers:
        predicted = release.predictions(ticker)
        sessions = predicted["session"].to_pylist()
        scores = scorer.score([scorer.locate(ticker, session) for session in sessions])
        assert scores["session"].to_pylist() == sessions
        np.testing.assert_allclose(numbers(scores), numbers(predicted), rtol=0, atol=1e-6)
        actions = np.array(["buy", "sell", "hold"])[predicted["action"].to_numpy()]
        assert scores["action"].to_pylist() == actions.tolist()
        assert set(scores["model_sha256"].to_pylist()) == {release.assets[ticker].evaluated.model_sha256}
        assert set(scores["release_id"].to_pylist()) == {release.release_id}


def test_a_score_does_not_depend_on_its_company(scorer: Scorer) -> None:
    """Alone, in a stack of all models, in a batch of its own model or in a mixture: the same numbers within 1e-6."""
    mixture = windows_of(scorer, 3)[:-4]  # some models are asked about three windows, some about two
    newest = windows_of(scorer, 1)
    alone = np.concatenate([numbers(scorer.score([window])) for window in [*mixture, *newest]])
    together = np.concatenate([numbers(scorer.score(mixture)), numbers(scorer.score(newest))])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    backwards = numbers(scorer.score(mixture[::-1]))[::-1]
    np.testing.assert_allclose(backwards, alone[: len(mixture)], rtol=0, atol=1e-6)


def test_the_same_call_gives_the_same_bits(scorer: Scorer) -> None:
    """Nothing random and nothing left over from the call before."""
    windows = windows_of(scorer, 2)
    first = scorer.score(windows)
    scorer.score(windows[:3])
    assert scorer.score(windows).equals(first)
    assert first.schema.equals(SCORES)


def test_prices_are_as_traded_and_multiplied(scorer: Scorer, small_lake: Path) -> None:
    """Price is the lake's close of that session; price_pred is it times one plus the predicted return."""
    lake = Lake(small_lake)
    scores, skipped = scorer.score_all()
    assert not skipped
    for row in scores.to_pylist():
        assert row["price"] == lake.bars(row["ticker"], ["close"])["close"].iloc[-1]
        assert row["price_pred"] == row["price"] * (1 + row["return_pred"])


def test_a_day_without_session_means_the_one_before(scorer: Scorer) -> None:
    """A weekend and the far future give the windows of the last session before them."""
    newest = scorer.newest_session
    assert newest is not None
    friday = next(day for day in scorer.calendar[-10:].astype(object) if day.weekday() == 4)
    assert scorer.locate("SIMA3", friday + timedelta(days=2)).session == friday
    assert scorer.locate("SIMA3", date(2099, 1, 1)).session == newest
    assert scorer.locate("SIMA3").session == newest


def test_rows_that_a_model_was_trained_on_are_marked(scorer: Scorer, release: Release, small_lake: Path) -> None:
    """Up to its anchor and no further, one by one and as a history; a naive model was trained on nothing."""
    anchor = release.assets["SIMA3"].served.anchor
    history = scorer.history("SIMA3", date(1990, 1, 1), date(2100, 1, 1))
    expected = [session <= anchor for session in history["session"].to_pylist()]
    assert history["in_sample"].to_pylist() == expected and len(set(expected)) == 2
    after = next(session for session in history["session"].to_pylist() if session > anchor)
    scores = scorer.score([scorer.locate("SIMA3", day) for day in (anchor, after)])
    assert scores["in_sample"].to_pylist() == [True, False]
    naive = {**release.assets, "SIMA3": dataclasses.replace(release.assets["SIMA3"], source="naive")}
    unseen = Scorer(dataclasses.replace(release, assets=naive), Lake(small_lake))
    assert unseen.score([unseen.locate("SIMA3", anchor)])["in_sample"].to_pylist() == [False]
    assert not any(unseen.history("SIMA3", date(1990, 1, 1), date(2100, 1, 1))["in_sample"].to_pylist())


def test_unknown_tickers_and_early_days_are_refused(scorer: Scorer) -> None:
    """A ticker without a model names the nearest; a day too early says how many sessions are needed and found."""
    with pytest.raises(UnknownTickerError, match="no model of SIMA9") as unknown:
        scorer.locate("SIMA9")
    assert "SIMA3" in unknown.value.hint
    with pytest.raises(TooFewSessionsError, match=r"51 \(32 in the window, 19 before it for .*whole") as early:
        scorer.locate("SIMA3", scorer.calendar[49].astype(object))
    assert (early.value.needed, early.value.found) == (51, 50)
    assert scorer.locate("SIMA3", scorer.calendar[50].astype(object)).found == 51
    with pytest.raises(TooFewSessionsError) as before:
        scorer.locate("SIMA3", date(1990, 1, 1))
    assert before.value.found == 0
