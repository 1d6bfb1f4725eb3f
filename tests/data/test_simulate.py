"""The simulated market: official files, a truth that holds, a signal of the planted size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from b3dist.config import FeatureSet
from b3dist.data.cotahist import read_cotahist
from b3dist.data.exchange import b3_sessions
from b3dist.data.features import INPUT_COLUMNS, INVALID_ROWS, Bars, compute_features
from b3dist.data.simulator import TRUTH, simulate
from b3dist.data.simulator.bars import asset_records, listings, share_factors
from b3dist.data.simulator.market import (
    HORIZON,
    MARK_SESSIONS,
    PERSISTENCE,
    market_sessions,
    signal_loading,
    simulate_histories,
)
from b3dist.errors import ConfigError, StorageError

ASSETS, SESSIONS = 24, 1500


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default market with a strong signal."""
    out = tmp_path_factory.mktemp("market") / "sim"
    simulate(out, assets=ASSETS, sessions=SESSIONS, seed=7, signal=0.3)
    return out


@pytest.fixture(scope="module")
def truth(market: Path) -> dict[str, Any]:
    """What truth.json says of it."""
    return json.loads((market / TRUTH).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def records(market: Path) -> pd.DataFrame:
    """All records of its files, as the verifying reader sees them."""
    return pd.concat([read_cotahist(path) for path in sorted(market.glob("COTAHIST_A*.ZIP"))], ignore_index=True)


@pytest.fixture(scope="module")
def bars(records: pd.DataFrame, truth: dict[str, Any]) -> pd.DataFrame:
    """The records of the simulated assets in the cash market."""
    return records[records["ticker"].isin([asset["ticker"] for asset in truth["tickers"]])]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Files and truth repeat to the byte for a seed, and differ for another."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        simulate(tmp_path / name, assets=3, sessions=300, seed=seed)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


def test_one_file_per_year_on_the_exchange_calendar(market: Path, truth: dict[str, Any], bars: pd.DataFrame) -> None:
    """Years 2012-2018 are written; the sessions are B3's own, and someone trades on each."""
    assert [file["name"] for file in truth["files"]] == [f"COTAHIST_A{year}.ZIP" for year in range(2012, 2019)]
    assert sorted(files_of(market)) == [*(file["name"] for file in truth["files"]), TRUTH]
    sessions = market_sessions(SESSIONS)
    assert str(sessions[-1]) == "2018-12-28"
    assert np.array_equal(sessions, b3_sessions(sessions[0], sessions[-1]))
    assert truth["calendar"] == sessions.astype(str).tolist()
    assert np.array_equal(np.unique(bars["session"].to_numpy().astype("datetime64[D]")), sessions)


def test_truth_counts_what_the_files_hold(truth: dict[str, Any], bars: pd.DataFrame, records: pd.DataFrame) -> None:
    """Records per file, and sessions per ticker with first and last, agree; every asset keeps 1,000 sessions."""
    assert sum(file["records"] for file in truth["files"]) == len(records)
    found = bars.groupby("ticker")["session"].agg(["size", "min", "max"])
    assert len(found) == len(truth["tickers"]) == ASSETS
    for asset in truth["tickers"]:
        size, first, last = found.loc[asset["ticker"]]
        assert (asset["num_sessions"], asset["first_session"], asset["last_session"]) == (
            size,
            str(first.date()),
            str(last.date()),
        )
        assert size >= 1000
        assert (asset["fate"] == "full") == (size == SESSIONS)
    fates = pd.Series([asset["fate"] for asset in truth["tickers"]]).value_counts()
    assert fates.to_dict() == {"full": 17, "halted": 3, "ipo": 2, "delisted": 2}


def test_halted_assets_miss_a_week_and_more(truth: dict[str, Any], bars: pd.DataFrame) -> None:
    """Each halted asset has one gap of more than 5 exchange sessions."""
    position = {session: number for number, session in enumerate(truth["calendar"])}
    for asset in truth["tickers"]:
        if asset["fate"] == "halted":
            sessions = bars.loc[bars["ticker"] == asset["ticker"], "session"].dt.strftime("%Y-%m-%d")
            assert np.diff([position[session] for session in sessions]).max() > 5


def test_prices_are_possible(bars: pd.DataFrame) -> None:
    """Low <= open, average, close <= high; the quotes enclose the close; no penny stocks; lots of 100."""
    low, high = bars["low"], bars["high"]
    for name in ("open", "average", "close"):
        assert ((low <= bars[name]) & (bars[name] <= high)).all(), name
    assert bars["close"].min() >= 11.99
    assert (bars["best_bid"] < bars["close"]).all()
    assert ((bars["best_ask"] > bars["close"]) | (bars["best_ask"] == 0)).all()
    assert 0.001 < (bars["best_bid"] == 0).mean() < 0.01
    assert ((bars["quantity"] % 100 == 0) & (bars["quantity"] > 0) & (bars["trades"] > 0)).all()
    assert np.allclose(bars["turnover_brl"], bars["quantity"] * bars["average"], atol=0.006)


def test_returns_have_fat_tails_clusters_and_a_common_factor(bars: pd.DataFrame) -> None:
    """Excess kurtosis, autocorrelated squares, correlated assets, and volume that follows the moves."""
    returns, volumes = [], []
    for _, asset in bars.groupby("ticker"):
        moves = np.log(asset["close"]).diff().to_numpy(copy=True)[1:]
        moves[np.abs(moves) > 0.09] = 0.0  # share events, and the largest tails
        returns.append(pd.Series(moves, index=asset["session"].to_numpy()[1:]))
        volumes.append(np.corrcoef(np.abs(moves), np.log(asset["quantity"].to_numpy()[1:]))[0, 1])
    frame = pd.concat(returns, axis=1)
    correlations = frame.corr().to_numpy()[np.triu_indices(ASSETS, 1)]
    assert frame.kurt().mean() > 1
    assert frame.apply(lambda moves: (moves.dropna() ** 2).autocorr(1)).mean() > 0.05
    assert 0.15 < correlations.mean() < 0.5
    assert np.mean(volumes) > 0.1


def test_share_events_show_as_the_exchange_shows_them(truth: dict[str, Any], bars: pd.DataFrame) -> None:
    """On each ex-date the number of distribution grows, the mark stands for 8 sessions, and price x factor goes on."""
    assert len(truth["events"]) >= ASSETS
    assert {event["factor"] > 1 for event in truth["events"]} == {True, False}
    by_ticker = dict(list(bars.groupby("ticker")))
    for event in truth["events"]:
        asset = by_ticker[event["ticker"]]
        row = int(np.flatnonzero(asset["session"] == pd.Timestamp(event["ex_date"]))[0])
        marks = asset["specification"].str[4:8].str.strip()
        letter = "G" if event["factor"] < 1 else "B"
        assert marks.iloc[row] == event["mark"]
        assert marks.iloc[row : row + MARK_SESSIONS].str.contains(letter).all()
        assert asset["distribution_number"].diff().iloc[row] == 1
        step = asset["close"].iloc[row] * event["factor"] / asset["close"].iloc[row - 1]
        assert abs(np.log(step)) < 0.2, event


def test_cash_events_drop_the_price_a_little(truth: dict[str, Any], bars: pd.DataFrame) -> None:
    """Sessions on which only cash goes ex: the distribution number grows and the mean step is the mean drop."""
    shares = {(event["ticker"], event["ex_date"]) for event in truth["events"]}
    cash = [event for event in truth["cash_events"] if (event["ticker"], event["ex_date"]) not in shares]
    assert {event["mark"] for event in cash} >= {"ED", "EJ"}
    steps = bars.assign(
        step=bars.groupby("ticker")["close"].pct_change(),
        grown=bars.groupby("ticker")["distribution_number"].diff(),
        day=bars["session"].dt.strftime("%Y-%m-%d"),
    ).set_index(["ticker", "day"])
    later = [event for event in cash if not np.isnan(steps.loc[(event["ticker"], event["ex_date"]), "step"])]
    keys = [(event["ticker"], event["ex_date"]) for event in later]
    assert (steps.loc[keys, "grown"] == 1).all()
    gap = steps.loc[keys, "step"].mean() + np.mean([event["drop"] for event in later])
    assert abs(gap) < 4 * steps.loc[keys, "step"].std() / np.sqrt(len(keys))


def test_other_instruments_are_there_to_be_dropped(records: pd.DataFrame, truth: dict[str, Any]) -> None:
    """Odd lots, forwards, calls, a right, a fund and a BDR stand between the shares; ISINs carry their check digit."""
    others = records[~records["ticker"].isin([asset["ticker"] for asset in truth["tickers"]])]
    assert set(others["market"]) == {10, 20, 30, 70}
    assert {"DIR ORD", "CI", "DRN"} <= set(others["specification"])
    assert len(others) > 0.05 * len(records)
    assert listings(1)[0].ticker == "SIMA3"
    digits = "".join(str(int(character, 36)) for character in records["isin"].iloc[0])
    assert sum(sum(divmod(int(digit) * (1 + at % 2), 10)) for at, digit in enumerate(reversed(digits))) % 10 == 0


@pytest.mark.parametrize("signal", [0.05, 0.3, 0.6])
def test_loading_gives_the_planted_correlation(signal: float) -> None:
    """In 1,000,000 steps of the documented process the correlation is the planted one, and the variance is kept."""
    rng = np.random.default_rng(11)
    state = np.empty(1_000_000)
    state[0] = rng.standard_normal()
    innovations = np.sqrt(1 - PERSISTENCE**2) * rng.standard_normal(len(state))
    for row in range(1, len(state)):
        state[row] = PERSISTENCE * state[row - 1] + innovations[row]
    variance = 0.02**2
    loading = signal_loading(signal, variance)
    returns = loading * state[:-1] + np.sqrt(variance - loading**2) * rng.standard_normal(len(state) - 1)
    two_sessions = returns[:-1] + returns[1:]
    assert np.corrcoef(state[:-2], two_sessions)[0, 1] == pytest.approx(signal, abs=0.004)
    assert returns.var() == pytest.approx(variance, rel=0.01)


def planted_and_later(truth: dict[str, Any], bars: pd.DataFrame) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Standardised predictors and later 2-session returns of all assets in one array each, events taken out."""
    predictors, later = [], []
    for ticker, asset in bars.groupby("ticker"):
        sessions = asset["session"].dt.strftime("%Y-%m-%d").to_numpy()
        close = asset["close"].to_numpy(copy=True)
        for event in truth["events"]:
            if event["ticker"] == ticker:
                close[sessions >= event["ex_date"]] *= event["factor"]
        column = dict(zip(truth["calendar"], truth["predicted_return"][ticker], strict=True))
        planted = np.array([column[session] for session in sessions], dtype=float)
        moves = close[HORIZON:] / close[:-HORIZON] - 1
        predictors.append(planted[:-HORIZON])
        later.append((moves - moves.mean()) / moves.std())
        assert [value for session, value in column.items() if session not in set(sessions)].count(None) == len(
            column
        ) - len(sessions)
    return np.concatenate(predictors), np.concatenate(later)


def test_files_hold_the_planted_correlation(truth: dict[str, Any], bars: pd.DataFrame) -> None:
    """Measured on closes read back from the files, predictor and 2-session return correlate by the planted 0.30."""
    assert truth["signal"] == truth["true_ic"] == 0.3
    predictor, later = planted_and_later(truth, bars)
    assert np.corrcoef(predictor, later)[0, 1] == pytest.approx(0.3, abs=0.03)
    assert truth["realised_ic_mean"] == pytest.approx(0.3, abs=0.03)


def test_no_signal_is_exactly_none(tmp_path: Path) -> None:
    """With signal 0 every predicted return is 0 and no realised correlation is claimed."""
    simulate(tmp_path / "sim", assets=2, sessions=200, seed=1, signal=0.0)
    truth = json.loads((tmp_path / "sim" / TRUTH).read_text(encoding="utf-8"))
    assert {value for column in truth["predicted_return"].values() for value in column} == {0.0}
    assert set(truth["realised_ic"].values()) == {None}
    assert truth["realised_ic_mean"] is None


def out_of_sample_ic(*, signal: float, seed: int, feature_set: FeatureSet) -> float:
    """Correlation of one pooled OLS forecast, fitted on the first 60 %, with what came after; mean over assets."""
    calendar, fitted, held_out = market_sessions(SESSIONS), [], []
    histories = simulate_histories(assets=12, sessions=SESSIONS, seed=seed, signal=signal)
    for history, listing in zip(histories, listings(12), strict=True):
        frame = asset_records(history, listing, calendar, seed=seed)
        asset = Bars.adjusted({name: frame[name].to_numpy() for name in INPUT_COLUMNS}, share_factors(history))
        features = compute_features(asset, feature_set)[INVALID_ROWS:-HORIZON]
        target = (asset.close[HORIZON:] / asset.close[:-HORIZON] - 1)[INVALID_ROWS:]
        border = int(0.6 * len(target))
        table = np.column_stack([features, target])
        table = (table - table[:border].mean(axis=0)) / table[:border].std(axis=0)
        fitted.append(table[:border])
        held_out.append(table[border + HORIZON :])
    pooled = np.concatenate(fitted)
    weights = np.linalg.lstsq(pooled[:, :-1], pooled[:, -1], rcond=None)[0]
    return float(np.mean([np.corrcoef(table[:, :-1] @ weights, table[:, -1])[0, 1] for table in held_out]))


@pytest.mark.parametrize(("feature_set", "null_bound"), [("v1", 0.1), ("v2", 0.04)])
def test_signal_can_be_learned_from_the_features(feature_set: FeatureSet, null_bound: float) -> None:
    """Least squares on the model's own columns finds most of a planted 0.30 out of sample, and little in nothing.

    v1 finds some 0.05 even there: price levels correlate negatively with later returns in any finite window.
    """
    found = [out_of_sample_ic(signal=0.3, seed=seed, feature_set=feature_set) for seed in (1, 2, 3)]
    nothing = [out_of_sample_ic(signal=0.0, seed=seed, feature_set=feature_set) for seed in (1, 2, 3)]
    assert np.mean(found) > 0.24
    assert abs(np.mean(nothing)) < null_bound
    assert min(np.subtract(found, nothing)) > 0.15


def test_quotes_show_nothing_where_nothing_is_planted() -> None:
    """With signal 0 the best bid's distance, pooled over 48,000 sessions, does not correlate with what follows."""
    distances, later = [], []
    for history, listing in zip(
        simulate_histories(assets=32, sessions=SESSIONS, seed=5, signal=0.0), listings(32), strict=True
    ):
        frame = asset_records(history, listing, market_sessions(SESSIONS), seed=5)
        close = frame["close"].to_numpy() * share_factors(history)
        moves = close[HORIZON:] / close[:-HORIZON] - 1
        quoted = frame["best_bid"].to_numpy() > 0
        gap = (1 - frame["best_bid"] / frame["close"]).to_numpy()[:-HORIZON][quoted[:-HORIZON]]
        distances.append((gap - gap.mean()) / gap.std())
        later.append(((moves - moves.mean()) / moves.std())[quoted[:-HORIZON]])
    assert abs(np.corrcoef(np.concatenate(distances), np.concatenate(later))[0, 1]) < 0.015


def test_assets_do_not_depend_on_their_number() -> None:
    """The first assets of a larger market move as in a smaller one, fates apart."""
    few = simulate_histories(assets=2, sessions=400, seed=9, signal=0.1)
    many = simulate_histories(assets=5, sessions=400, seed=9, signal=0.1)
    assert np.array_equal(few[1].returns, many[1].returns)


def test_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    """A folder that holds anything else, a file, and a former simulation with additions are refused, untouched."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    simulate(tmp_path / "former", assets=1, sessions=100)
    (tmp_path / "former" / "notes.txt").write_text("keep")
    for name in ("mine", "file", "former"):
        with pytest.raises(ConfigError, match="cannot simulate into"):
            simulate(tmp_path / name, assets=1, sessions=100)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "former" / "notes.txt").read_text() == "keep"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "former", "mine"]


def test_former_simulation_is_replaced(tmp_path: Path) -> None:
    """A second simulation into the same folder leaves only its own files; an empty folder is used."""
    (tmp_path / "sim").mkdir()
    simulate(tmp_path / "sim", assets=1, sessions=400)
    done = simulate(tmp_path / "sim", assets=1, sessions=100)
    assert sorted(files_of(tmp_path / "sim")) == [*(path.name for path in done.files), TRUTH]
    assert [entry.name for entry in tmp_path.iterdir()] == ["sim"]


def test_link_is_followed_and_the_current_folder_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a folder stays a link; the folder one stands in is never replaced."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    simulate(tmp_path / "link", assets=1, sessions=100)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / TRUTH).is_file()
    monkeypatch.chdir(tmp_path / "disk")
    with pytest.raises(ConfigError, match="current folder"):
        simulate(Path(), assets=1, sessions=100)


def test_unwritable_place_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """Where the parent is a file, one clear error."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot write the simulation"):
        simulate(tmp_path / "file" / "sim", assets=1, sessions=100)


@pytest.mark.parametrize(
    "wrong", [{"assets": 0}, {"assets": 5000}, {"sessions": 10}, {"sessions": 9000}, {"seed": -1}, {"signal": 1.5}]
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Each argument's bounds are told before anything is written."""
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong))}"):
        simulate(tmp_path / "sim", **{"assets": 1, "sessions": 100, **wrong})
    assert list(tmp_path.iterdir()) == []
