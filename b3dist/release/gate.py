"""Is a release worse than the champion? Judged on the sessions that are test sessions of both, asset by asset.

Two scores without a unit, so that one margin fits both:

return_error   RMSE of the predicted return / RMSE of predicting no change, mean over assets
macro_f1       of the actions of all windows together: single test parts seldom hold the rare ones

Assets whose evaluated weights are the same in both say nothing about which is better, and are left out. What is
compared are the evaluated weights, also of a refitted release: refitted ones have seen these sessions.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from b3dist.release.parts import test_rows
from b3dist.release.released import Release, ReleasedAsset
from b3dist.training.metrics import confusion_matrix, macro_f1_of

DEFAULT_MARGIN = 0.02
"""Of either score. Why this much: docs/decisions/0040-releases.md."""

_BOTH = ("old", "new")
_LABEL_SETTINGS = ("label_set", "horizon", "volatility_multiple", "volatility_window")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score of both releases on the same windows."""

    name: str
    champion: float
    candidate: float
    worse_by: float
    """Above 0 where the candidate is the worse one."""
    standard_error: float | None
    """Of worse_by over assets; None for a single one."""
    assets: int
    windows: int

    def __str__(self) -> str:
        error = f" ± {self.standard_error:.4f}" if self.standard_error is not None else ""
        return (
            f"{self.name} {self.candidate:.4f} against the champion's {self.champion:.4f}"
            f" (worse by {self.worse_by:+.4f}{error}; {self.assets} assets, {self.windows} common test windows)"
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate beside the champion."""

    champion_id: str
    candidate_id: str
    champion_assets: int
    """With a model: the naive forecast does not count."""
    candidate_assets: int
    missing: tuple[str, ...]
    """Assets that the champion has a model of and the candidate has not."""
    same_models: int
    """Assets with the same evaluated weights in both."""
    scores: tuple[Score, ...]
    margin: float
    objections: tuple[str, ...]
    """Why the candidate may not become champion; none: it may."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)


def compare_releases(champion: Release, candidate: Release, *, margin: float = DEFAULT_MARGIN) -> Comparison:
    """Compare a release with the champion, and object where it is worse by more than the margin or covers less."""
    common = champion.assets.keys() & candidate.assets.keys()
    same = {ticker for ticker in common if _evaluated(champion, ticker) == _evaluated(candidate, ticker)}
    rows = _common_windows(champion, candidate, common - same)
    scores = tuple(
        score
        for score in (
            _return_error(rows[rows["ticker"].isin(_agreeing(champion, candidate, common - same, ("horizon",)))]),
            _macro_f1(rows[rows["ticker"].isin(_agreeing(champion, candidate, common - same, _LABEL_SETTINGS))]),
        )
        if score is not None
    )
    objections = [f"{score} by more than {margin:g}" for score in scores if not score.worse_by <= margin]
    before, now = _covered(champion), _covered(candidate)
    missing = tuple(sorted(before - now))
    if len(now) < len(before):
        objections.append(
            f"it covers {len(now)} assets, the champion {len(before)}"
            f" (missing: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''})"
        )
    if not scores and before - same and now - same:  # where all that differs is what it lacks, that was said above
        objections.append("the two have no test session, horizon and label set in common to be compared on")
    return Comparison(
        champion_id=champion.release_id,
        candidate_id=candidate.release_id,
        champion_assets=len(before),
        candidate_assets=len(now),
        missing=missing,
        same_models=len(same),
        scores=scores,
        margin=margin,
        objections=tuple(objections),
    )


def _covered(release: Release) -> set[str]:
    """The assets with a model, of their own or pooled: the naive forecast covers nothing."""
    return {ticker for ticker, asset in release.assets.items() if asset.source != "naive"}


def _evaluated(release: Release, ticker: str) -> str:
    return release.assets[ticker].evaluated.model_sha256


def _agreeing(champion: Release, candidate: Release, tickers: set[str], settings: tuple[str, ...]) -> list[str]:
    """The assets for which both releases have these data settings in common."""

    def chosen(asset: ReleasedAsset) -> list[Any]:
        return [asset.facts["config"]["data"][name] for name in settings]

    return [ticker for ticker in tickers if chosen(champion.assets[ticker]) == chosen(candidate.assets[ticker])]


def _common_windows(champion: Release, candidate: Release, tickers: set[str]) -> pd.DataFrame:
    """Test windows of both: the candidate's truth, and both predictions as action_old, action_new, return_old, ..."""
    old, new = (_test_windows(release) for release in (champion, candidate))
    old = old[old["ticker"].isin(tickers)].drop(columns=["y_action", "y_return"])
    return new.merge(old, on=["ticker", "session"], suffixes=("_new", "_old"))


def _test_windows(release: Release) -> pd.DataFrame:
    columns = ["ticker", "session", "y_action", "y_return", "action", "return_pred"]
    part = test_rows(release.predictions()).select(columns)
    return pd.DataFrame(part.to_pandas(date_as_object=False))


def _return_error(rows: pd.DataFrame) -> Score | None:
    errors = []
    for _, windows in rows.groupby("ticker", sort=True):
        truth = windows["y_return"].to_numpy()
        if (nothing := _rmse(truth)) > 0:
            both = (windows[f"return_pred_{which}"].to_numpy() - truth for which in _BOTH)
            errors.append([_rmse(residual) / nothing for residual in both])
    if not errors:
        return None
    old, new = np.array(errors).T
    return Score(
        name="return_error",
        champion=float(old.mean()),
        candidate=float(new.mean()),
        worse_by=float((new - old).mean()),
        standard_error=float((new - old).std(ddof=1) / np.sqrt(len(new))) if len(new) > 1 else None,
        assets=len(new),
        windows=len(rows),
    )


def _macro_f1(rows: pd.DataFrame) -> Score | None:
    if rows.empty:
        return None
    confusions = np.array(
        [
            [confusion_matrix(windows["y_action"].to_numpy(), windows[f"action_{which}"].to_numpy()) for which in _BOTH]
            for _, windows in rows.groupby("ticker", sort=True)
        ]
    )  # (assets, 2, 3, 3)
    total = confusions.sum(axis=0)
    old, new = macro_f1_of(total).tolist()
    size, error = len(confusions), None
    if size > 1:  # jackknife over assets
        without_one = macro_f1_of(total - confusions)
        error = float(np.std(without_one[:, 0] - without_one[:, 1]) * np.sqrt(size - 1))
    return Score(
        name="macro_f1",
        champion=old,
        candidate=new,
        worse_by=old - new,
        standard_error=error,
        assets=size,
        windows=len(rows),
    )


def _rmse(residual: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(residual).mean()))
