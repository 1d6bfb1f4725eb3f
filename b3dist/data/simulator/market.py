"""A B3-like market in numbers: returns with fat tails and volatility clusters, corporate events, a planted signal.

The planted signal. Each asset carries a state u, a Gaussian AR(1) with coefficient PERSISTENCE and unit variance that
steps once per session the asset trades. The state at session t is visible in the bar of session t (the best bid stands
further below the close and the volume is larger where u is high, see `bars`), and moves the next return:

    r[t+1] = drift + a u[t] + e[t+1],   e: market factor + own shock, GARCH(1,1) with Student-t innovations,

with e independent of u and serially uncorrelated. So E[r[t+1] + r[t+2] | u[t]] = a (1 + phi) u[t] + const, and with V
the unconditional variance of r, held fixed: Var(r[t+1] + r[t+2]) = 2 (V + a^2 phi). The Pearson correlation of the
predictor a (1 + phi) u[t] with the 2-session return equals `signal` for

    a = signal sqrt(2 V / ((1 + phi)^2 - 2 signal^2 phi)).

That is the population value whatever the tails and the clusters are, because only second moments enter. Compounding
(r[t+1] r[t+2] is uncorrelated with u), dividends and the cent grid leave it correct to about 1 % of itself.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import signal as filters

from b3dist.data.exchange import b3_sessions
from b3dist.errors import ConfigError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HORIZON: Final = 2
"""Sessions ahead that the planted signal speaks of."""
PERSISTENCE: Final = 0.85
"""phi: correlation of a state with the one of the session before."""
LAST_SESSION: Final = date(2018, 12, 28)
"""Every simulated market ends here, so that a file depends on nothing but its arguments."""
MARK_SESSIONS: Final = 8
"""Sessions an ex-mark stands in ESPECI."""

_FIRST_SESSION = date(1995, 1, 2)  # the calendar was not compared with files before 2012, and BRL began in 1994
_ARCH, _GARCH = 0.07, 0.90  # with t(6) shocks the fourth moment is finite: 6 * 0.07^2 + 2 * 0.07 * 0.9 + 0.9^2 < 1
_DEGREES_OF_FREEDOM = 6
_WARM_UP = 250
_LARGEST_MOVE = 0.35
_EVENT_SPACING = 30
_SHARE_EVENTS = ((2.0, "B"), (1.1, "B"), (0.2, "G"), (3.0, "B"), (4.0, "B"), (0.25, "G"), (1.2, "B"), (5.0, "B"))


@dataclass(frozen=True, kw_only=True)
class CorporateEvent:
    """Something that makes the price step on its ex-date without a gain or loss of the holder."""

    row: int
    """Ex-date, as a position among the asset's own sessions."""
    letter: str
    """B bonus or split, G reverse split, D dividend, J interest on equity."""
    factor: float = 1.0
    """New shares per old share."""
    drop: float = 0.0
    """Cash paid, as a fraction of the price."""


@dataclass(frozen=True, kw_only=True)
class AssetHistory:
    """What happens to one asset, in its own clock of n traded sessions."""

    number: int
    """Position in the market, from 0."""
    fate: str
    """full, ipo (starts late), delisted (ends early) or halted (one gap or more)."""
    traded: Ints
    """(n,) positions in the market's calendar, ascending."""
    returns: Floats
    """(n,) simple return from the session before, cleaned of corporate events; the first is 0."""
    volatility: Floats
    """(n,) standard deviation of that return given the past."""
    state: Floats
    """(n,) the AR(1) state u, unit variance, known at the close of its session."""
    predictor: Floats
    """(n,) planted part of the return of the following HORIZON sessions, known at the close of its session."""
    events: tuple[CorporateEvent, ...]
    """Share and cash events in order of time."""


def market_sessions(count: int, *, last: date = LAST_SESSION) -> npt.NDArray[np.datetime64]:
    """The `count` sessions of B3 that end with `last`, datetime64[D], ascending.

    Raises:
        ConfigError: the exchange calendar does not reach back so far.
    """
    most = (last - _FIRST_SESSION).days  # more sessions than days would leave the calendar's dates
    first = max(last - timedelta(days=min(count, most) * 3 // 2 + 30), _FIRST_SESSION)
    sessions = b3_sessions(np.datetime64(first), np.datetime64(last))
    if len(sessions) < count:
        raise ConfigError(
            f"--sessions must be at most {len(sessions)} (B3 from {_FIRST_SESSION} to {last}), got {count}"
        )
    return sessions[-count:]


def signal_loading(signal: float, variance: float) -> float:
    """Loading a of the state on the next session's return, for a population information coefficient `signal`.

    Args:
        signal: Pearson correlation of predictor and HORIZON-session return, 0 to below sqrt((1 + PERSISTENCE) / 2).
        variance: unconditional variance of one session's return.
    """
    denominator = (1 + PERSISTENCE) ** 2 - 2 * signal**2 * PERSISTENCE
    return float(signal * np.sqrt(2 * variance / denominator))


def simulate_histories(*, assets: int, sessions: int, seed: int, signal: float) -> list[AssetHistory]:
    """Histories of all assets: one market factor, own shocks, fates and corporate events.

    Shocks, states, fates and events do not depend on `signal`: the same seed with another signal is the same market
    with another predictable part.
    """
    fates = _fates(assets, seed)
    market, *own = [_Draws.of_series(seed, number, sessions) for number in range(-1, assets)]
    clustered, volatility = _garch(np.column_stack([market.shocks, *(draws.shocks for draws in own)]))
    series = np.stack([clustered, volatility])
    return [
        _history(number, fates[number], draws, market=series[..., 0], own=series[..., number + 1], signal=signal)
        for number, draws in enumerate(own)
    ]


def _history(number: int, fate: str, draws: "_Draws", *, market: Floats, own: Floats, signal: float) -> AssetHistory:
    """One asset's history; market, own: (2, sessions) unit-variance shocks and their conditional deviations.

    The asset's own shocks and state run in its own clock, the market factor in the calendar's.
    """
    rng = draws.rng
    traded = _traded_sessions(fate, len(draws.state), rng)
    count = len(traded)
    variance = float(rng.uniform(0.25, 0.45) ** 2 / 252)
    share = float(rng.uniform(0.15, 0.4))
    drift = float(rng.uniform(-0.0001, 0.0004))
    loading = signal_loading(signal, variance)
    noise = variance - loading**2
    state = draws.state[:count]
    returns = drift + np.sqrt(noise) * (np.sqrt(share) * market[0, traded] + np.sqrt(1 - share) * own[0, :count])
    returns[1:] += loading * state[:-1]
    returns[0] = 0.0
    conditional = noise * (share * market[1, traded] ** 2 + (1 - share) * own[1, :count] ** 2)
    return AssetHistory(
        number=number,
        fate=fate,
        traded=traded,
        returns=np.clip(returns, -_LARGEST_MOVE, _LARGEST_MOVE),
        volatility=np.sqrt(conditional + loading**2),
        state=state,
        predictor=loading * (1 + PERSISTENCE) * state,
        events=_corporate_events(number, count, rng),
    )


@dataclass(frozen=True, kw_only=True)
class _Draws:
    """One series' random numbers; each asset has its own generator, so that assets do not depend on their number."""

    rng: np.random.Generator
    shocks: Floats  # (warm-up + sessions,) independent, unit variance
    state: Floats  # (sessions,)

    @classmethod
    def of_series(cls, seed: int, number: int, sessions: int) -> "_Draws":
        rng = np.random.default_rng([seed, number + 1])
        scale = np.sqrt((_DEGREES_OF_FREEDOM - 2) / _DEGREES_OF_FREEDOM)
        shocks = scale * rng.standard_t(_DEGREES_OF_FREEDOM, size=_WARM_UP + sessions)
        innovations = np.sqrt(1 - PERSISTENCE**2) * rng.standard_normal(_WARM_UP + sessions)
        state = filters.lfilter([1.0], [1.0, -PERSISTENCE], innovations)[_WARM_UP:]
        return cls(rng=rng, shocks=shocks, state=np.asarray(state, dtype=np.float64))


def _garch(shocks: Floats) -> tuple[Floats, Floats]:
    """Clustered series of unit variance and their conditional standard deviation, (sessions, series) each.

    Args:
        shocks: (warm-up + sessions, series) independent, unit variance.
    """
    clustered, volatility = np.empty_like(shocks), np.empty_like(shocks)
    variance = np.ones(shocks.shape[1])
    for row, shock in enumerate(shocks):
        volatility[row] = np.sqrt(variance)
        clustered[row] = volatility[row] * shock
        variance = (1 - _ARCH - _GARCH) + _ARCH * clustered[row] ** 2 + _GARCH * variance
    return clustered[_WARM_UP:], volatility[_WARM_UP:]


def _fates(assets: int, seed: int) -> list[str]:
    """One in twelve assets starts late, one in twelve ends early, one in eight is halted; all others trade always."""
    fates = ["full"] * assets
    order = np.random.default_rng([seed, 0, 1]).permutation(assets)
    troubled = ["ipo"] * round(assets / 12) + ["delisted"] * round(assets / 12) + ["halted"] * round(assets / 8)
    for number, fate in zip(order, troubled, strict=False):
        fates[int(number)] = fate
    return fates


def _traded_sessions(fate: str, sessions: int, rng: np.random.Generator) -> Ints:
    """Positions in the calendar at which an asset trades; at least 1,000 remain where the market is that long."""
    calendar = np.arange(sessions)
    absent = int(rng.uniform(0.1, 0.3) * sessions)
    if sessions >= 1000:
        absent = min(absent, sessions - 1000)
    if fate == "ipo":
        return calendar[absent:]
    if fate == "delisted":
        return calendar[: sessions - absent]
    if fate == "halted":
        keep = np.ones(sessions, dtype=bool)
        for length in (int(rng.integers(2, 6)), int(rng.integers(7, 13))):
            start = int(rng.integers(sessions // 10, sessions - sessions // 10))
            keep[start : start + min(length, sessions // 20)] = False
        return calendar[keep]
    return calendar


def _corporate_events(number: int, count: int, rng: np.random.Generator) -> tuple[CorporateEvent, ...]:
    """Share events at distinct, well separated sessions (about one per 1,000), two dividends and one interest a year.

    One share event in eight goes ex a dividend on the same session, as EDB marks do.
    """
    start = int(rng.integers(_EVENT_SPACING, 2 * _EVENT_SPACING))
    slots = rng.permutation(np.arange(start, count - _EVENT_SPACING, _EVENT_SPACING))
    first = 1 if count >= 500 else 0  # a long history has at least one event, so that every market holds some
    wanted = min(first + int(rng.poisson(count / 3000)), len(slots))
    events = []
    for position, row in enumerate(sorted(int(slot) for slot in slots[:wanted])):
        factor, letter = _SHARE_EVENTS[(number + 3 * position) % len(_SHARE_EVENTS)]
        events.append(CorporateEvent(row=row, letter=letter, factor=factor))
        if rng.random() < 1 / 8:
            events.append(CorporateEvent(row=row, letter="D", drop=float(rng.uniform(0.002, 0.012))))
    offset = int(rng.integers(5, 80))
    for turn, row in enumerate(range(offset, count - MARK_SESSIONS, 84)):
        drop = float(rng.uniform(0.002, 0.012))
        events.append(CorporateEvent(row=row, letter="J" if turn % 3 == 2 else "D", drop=drop))
    return tuple(sorted(events, key=lambda event: (event.row, event.letter)))
