"""A simulated B3 as official-layout COTAHIST files, with the truth beside them.

`simulate` turns the numbers of `market` into records, adds what the universe filter must drop (odd lots,
options, a right, a fund, a BDR), and writes COTAHIST_AYYYY.ZIP per year plus truth.json.
"""

import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from b3dist.data.cotahist import write_cotahist
from b3dist.data.simulator.bars import (
    Listing,
    Sessions,
    asset_records,
    complete_records,
    listings,
    share_factors,
)
from b3dist.data.simulator.market import HORIZON, PERSISTENCE, AssetHistory, Floats, market_sessions, simulate_histories
from b3dist.errors import ConfigError, StorageError

TRUTH: Final = "truth.json"
_GENERATOR: Final = "b3dist simulate"
_MOST_ASSETS: Final = 2000
_FEWEST_SESSIONS: Final = 80


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What was written."""

    files: list[Path]
    """The COTAHIST files, oldest first."""
    truth: Path
    assets: int
    sessions: int
    records: int
    """Records of all files, also of instruments outside the universe."""


def simulate(out: Path, *, assets: int = 24, sessions: int = 1500, seed: int = 7, signal: float = 0.1) -> Simulation:
    """Write a market into the folder `out`, whole or not at all; the same arguments give the same bytes.

    Args:
        out: new or empty folder, or one that holds a former simulation, which is replaced.
        assets: number of tickers.
        sessions: exchange sessions, ending on 2018-12-28; some assets start late, end early or are halted.
        seed: of all random numbers.
        signal: population Pearson correlation between the planted predictor and the 2-session return; 0: nothing.

    Raises:
        ConfigError: an argument is out of range, or `out` holds something else.
        StorageError: the disk is full or `out` cannot be written.
    """
    _check_arguments(assets=assets, sessions=sessions, seed=seed, signal=signal)
    try:
        place = out.resolve()  # a link is followed, so that its target is replaced and not the link
    except RuntimeError as error:  # what Python 3.12 raises for a link that leads to itself
        raise ConfigError(f"cannot simulate into {out}: {error}", hint="name another folder") from error
    former = _former_files(place)
    calendar = market_sessions(sessions)
    histories = simulate_histories(assets=assets, sessions=sessions, seed=seed, signal=signal)
    listed = listings(assets)
    frames = [asset_records(one, listing, calendar, seed=seed) for one, listing in zip(histories, listed, strict=True)]
    bars = pd.concat(frames, ignore_index=True)
    records = pd.concat([bars, other_records(bars, calendar)], ignore_index=True)
    records = records.sort_values(["session", "bdi_code", "name", "ticker"], kind="stable", ignore_index=True)

    aside = place.parent / f".{place.name}.{secrets.token_hex(4)}"
    try:
        aside.mkdir(parents=True)
        files = _write_years(aside, records)
        truth = describe(histories, frames, listed, calendar, seed=seed, signal=signal)
        text = json.dumps({**truth, "files": files}, indent=None, separators=(",", ":"), allow_nan=False)
        (aside / TRUTH).write_text(text + "\n", encoding="utf-8")
        _move_into_place(aside, place, former)
    except OSError as error:
        raise StorageError(
            f"cannot write the simulation to {out}: {error.strerror or error}",
            hint="check the free space and that the folder may be written, then run the same command again",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Simulation(
        files=[out / file["name"] for file in files],
        truth=out / TRUTH,
        assets=assets,
        sessions=sessions,
        records=len(records),
    )


def other_records(bars: pd.DataFrame, calendar: Sessions) -> pd.DataFrame:
    """Records that are no shares or units of the cash market, as any COTAHIST file holds them.

    Odd lots and forwards of all assets, calls on the first one, one subscription right, one fund and one BDR.
    """
    odd_lots = bars.iloc[::11]
    odd_lots = odd_lots.assign(
        ticker=odd_lots["ticker"] + "F", bdi_code=96, market=20, quantity=odd_lots["quantity"] // 4096 + 1
    )
    odd_lots["turnover_brl"] = (odd_lots["quantity"] * odd_lots["average"]).round(2)
    forwards = bars.iloc[::97]
    forwards = forwards.assign(
        ticker=forwards["ticker"] + "T", bdi_code=62, market=30, term_days="030", best_bid=0.0, best_ask=0.0
    )
    first = bars[bars["ticker"] == bars["ticker"].iloc[0]]
    recent = first[first["session"] >= calendar[-40:][0]]
    right = first.tail(10)
    code = str(first["ticker"].iloc[0])[:4]
    right = right.assign(ticker=f"{code}1", bdi_code=10, specification="DIR ORD")
    fund = recent.assign(ticker="FSIM11", name="FII SIMULADO", bdi_code=12, specification="CI")
    bdr = recent.assign(ticker="BSIM34", name="SIMULATED", specification="DRN")
    parts = [odd_lots, forwards, _calls(first.iloc[::7], code), right, fund, bdr]
    return complete_records(pd.concat([part for part in parts if len(part)], ignore_index=True))


def _calls(underlying: pd.DataFrame, code: str) -> pd.DataFrame:
    """One call per given bar, struck near the close, expiring on the third Monday of the next month."""
    month = underlying["session"].to_numpy().astype("datetime64[M]") + np.timedelta64(1, "M")
    expiry = np.busday_offset(month.astype("datetime64[D]"), 2, roll="forward", weekmask="Mon")
    strike = underlying["close"].round()
    letters = [chr(ord("A") + int(number)) for number in month.astype(np.int64) % 12]
    premium = {name: (0.04 * underlying[name]).round(2) for name in ("open", "high", "low", "average", "close")}
    return underlying.assign(
        ticker=[f"{code}{letter}{price:.0f}" for letter, price in zip(letters, strike, strict=True)],
        bdi_code=78,
        market=70,
        term_days="000",
        strike=strike,
        expiry=expiry.astype("datetime64[s]"),
        best_bid=0.0,
        best_ask=0.0,
        turnover_brl=(underlying["quantity"] * premium["average"]).round(2),
        **premium,
    )


def describe(
    histories: list[AssetHistory],
    frames: list[pd.DataFrame],
    listed: list[Listing],
    calendar: Sessions,
    *,
    seed: int,
    signal: float,
) -> dict[str, Any]:
    """What truth.json says, apart from the files.

    predicted_return holds per ticker one number per session of `calendar`, null where the asset did not trade: the
    planted part of close[t + horizon] / close[t] - 1 as known at the close of t, as a fraction.
    """
    tickers, share_events, cash_events, predicted, realised = [], [], [], {}, {}
    for history, frame, listing in zip(histories, frames, listed, strict=True):
        ticker, days = listing.ticker, calendar[history.traded].astype(str)
        tickers.append(
            {
                "ticker": ticker,
                "fate": history.fate,
                "num_sessions": len(days),
                "first_session": days[0],
                "last_session": days[-1],
            }
        )
        marks = frame["specification"].str[4:8].str.strip()
        for event in history.events:
            common = {"ticker": ticker, "ex_date": days[event.row], "mark": marks.iloc[event.row]}
            if event.factor == 1.0:
                cash_events.append({**common, "drop": round(event.drop, 6)})
            else:
                share_events.append({**common, "factor": event.factor})
        row = np.full(len(calendar), np.nan)
        row[history.traded] = history.predictor
        predicted[ticker] = [None if np.isnan(value) else round(float(value), 7) for value in row]
        realised[ticker] = _realised_ic(history, frame["close"].to_numpy(dtype=np.float64))
    known = [value for value in realised.values() if value is not None]
    return {
        "generator": _GENERATOR,
        "seed": seed,
        "assets": len(histories),
        "sessions": len(calendar),
        "signal": signal,
        "true_ic": signal,
        "realised_ic_mean": round(float(np.mean(known)), 6) if known else None,
        "realised_ic": realised,
        "horizon": HORIZON,
        "persistence": PERSISTENCE,
        "tickers": tickers,
        "events": share_events,
        "cash_events": cash_events,
        "calendar": calendar.astype(str).tolist(),
        "predicted_return": predicted,
    }


def _realised_ic(history: AssetHistory, close: Floats) -> float | None:
    """Correlation of predictor and later 2-session return in the files' closes; None where nothing is planted."""
    if not history.predictor.any():
        return None
    adjusted = close * share_factors(history)
    later = adjusted[HORIZON:] / adjusted[:-HORIZON] - 1
    return round(float(np.corrcoef(history.predictor[:-HORIZON], later)[0, 1]), 6)


def _write_years(folder: Path, records: pd.DataFrame) -> list[dict[str, Any]]:
    """Write one ZIP per calendar year and say what they hold; a file is dated by its last session."""
    years = records["session"].dt.year
    files = []
    for year, part in records.groupby(years, sort=True):
        path = folder / f"COTAHIST_A{year}.ZIP"
        written = write_cotahist(path, part, generated=part["session"].iloc[-1].date())
        files.append({"name": path.name, "records": written})
    return files


def _check_arguments(*, assets: int, sessions: int, seed: int, signal: float) -> None:
    if not 1 <= assets <= _MOST_ASSETS:
        raise ConfigError(f"--assets must be between 1 and {_MOST_ASSETS}, got {assets}")
    if sessions < _FEWEST_SESSIONS:
        raise ConfigError(f"--sessions must be at least {_FEWEST_SESSIONS}, got {sessions}")
    if seed < 0:
        raise ConfigError(f"--seed must be at least 0, got {seed}")
    if not 0 <= signal <= 0.9:
        raise ConfigError(f"--signal is a correlation and must be between 0 and 0.9, got {signal}")


def _former_files(out: Path) -> list[str]:
    """Names of a former simulation's files in `out`; empty where `out` is absent or empty.

    Raises:
        ConfigError: `out` is a file, or holds anything that no simulation wrote.
    """
    if not out.exists():
        return []
    remedy = "name another folder, or empty this one yourself"
    if not out.is_dir():
        raise ConfigError(f"cannot simulate into {out}: it is a file, expected a folder", hint=remedy)
    if out == Path.cwd():
        raise ConfigError(f"cannot simulate into the current folder {out}: it is replaced as a whole", hint=remedy)
    present = {entry.name for entry in out.iterdir()}
    if not present:
        return []
    try:
        truth = json.loads((out / TRUTH).read_text(encoding="utf-8"))
        written = {TRUTH, *(file["name"] for file in truth["files"])} if truth["generator"] == _GENERATOR else set()
    except (OSError, ValueError, KeyError, TypeError):
        written = set()
    foreign = sorted(present - written)
    if foreign:
        raise ConfigError(
            f"cannot simulate into {out}: it holds {foreign[0]!r}, which no simulation wrote", hint=remedy
        )
    return sorted(present)


def _move_into_place(aside: Path, out: Path, former: list[str]) -> None:
    """Rename the finished folder to `out`; a former simulation is moved out of the way first and deleted last."""
    if not former:
        if out.exists():
            out.rmdir()
        aside.replace(out)
        return
    old = out.parent / f"{aside.name}.old"
    out.replace(old)
    aside.replace(out)
    shutil.rmtree(old)
