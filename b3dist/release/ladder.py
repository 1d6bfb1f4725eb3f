"""The ladder a release goes down for an asset: a model of its own, else the pooled one, else the naive forecast.

own      trained on this asset (in the run, or carried over from the champion)
pooled   the pooled model, scaled by the asset's own history; also where a training that began from it kept it as it was
naive    a network of zeros: no change, and the actions as often as they were in training; for assets that no model
         was judged on (too short a history, no trading in the test part)
"""

import hashlib
from collections.abc import Collection, Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from b3dist.data.schema import ACTIONS
from b3dist.data.windows import SPLITS, Scaler
from b3dist.errors import ReleaseError
from b3dist.release.parts import AssetModel, AssetPart, part_of_bundle
from b3dist.run_folder import RunFolder, bundle_folders, is_driven
from b3dist.training.bundle import library_versions, read_bundle, serialise_weights
from b3dist.training.evaluation import evaluate_predictions
from b3dist.training.pooled_bundle import MODEL_FOLDER
from b3dist.training.return_unit import ReturnTarget

_SAME_ANSWER = ("label_set", "horizon")
"""Of the data's settings, those that must agree within a release, whose rows all say `action` and `return_pred`."""


def check_fallback(run: RunFolder, parts: Sequence[AssetPart]) -> None:
    """Refuse a run that assets without a model of their own cannot fall back on.

    Args:
        run: to fall back on.
        parts: what the release holds besides.

    Raises:
        ReleaseError: it is no pooled run, still going on or unfinished, its assets' models are gone, or it answers
            another question than the parts do.
        RunError: its model is damaged.
    """
    if run.settings.kind != "pooled":
        raise ReleaseError(
            f"run {run.run_id} is of kind {run.settings.kind}, and only a pooled run can be fallen back on",
            hint="b3dist pooled makes one",
        )
    if is_driven(run.path):
        raise ReleaseError(f"run {run.run_id} is still going on", hint="wait until it has finished")
    resume = run.how_to_resume()
    folder = run.path / MODEL_FOLDER
    if not folder.is_dir():  # written last
        raise ReleaseError(f"the pooled run {run.run_id} has not finished, so it holds no model", hint=resume)
    model = read_bundle(folder)
    try:
        evaluated = pq.read_table(folder / "predictions.parquet", columns=["ticker"], partitioning=None)["ticker"]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ReleaseError(f"the bundle {folder} cannot be read: {error}", hint="restore the folder") from error
    gone = sorted(set(evaluated.unique().to_pylist()) - {path.name for path in bundle_folders(run.path)})
    if gone:
        raise ReleaseError(
            f"the pooled run {run.run_id} has lost the models of {len(gone)} assets, e.g. {gone[0]}",
            hint=f"restore them, or have them written again: {resume}",
        )
    for name in _SAME_ANSWER:
        theirs, ours = getattr(model.config.data, name), {getattr(part.evaluated.data, name) for part in parts}
        if ours != {theirs}:
            raise ReleaseError(
                f"the pooled run {run.run_id} was trained with data.{name} {theirs}, the assets of the release with"
                f" {', '.join(sorted(map(str, ours)))}: a release answers one question",
                hint=f"train a pooled run with --set data.{name}={next(iter(ours))}",
            )


def pooled_parts(run: RunFolder, present: Collection[str]) -> list[AssetPart]:
    """The assets of a pooled run that have no model yet.

    Raises:
        RunError: a bundle is incomplete or damaged.
    """
    folders = bundle_folders(run.path)
    return [part_of_bundle(folder, run_id=run.run_id) for folder in folders if folder.name not in present]


def naive_parts(tickers: Collection[str], *, like: Sequence[AssetPart], run_id: str, newest: date) -> list[AssetPart]:
    """A part that predicts no change for each ticker.

    Args:
        tickers: assets without any model.
        like: trained parts; the first gives the windows' shape, all of them how frequent each action is.
        run_id: what the manifest names as their origin.
        newest: session that stands for their anchor, on which nothing depends: all weights are 0.
    """
    counts = np.array([[part.facts["splits"]["train"]["actions"][name] for name in ACTIONS] for part in like])
    frequency = (counts.sum(axis=0) + 1.0) / (counts.sum() + len(ACTIONS))
    state = {name: torch.zeros_like(tensor) for name, tensor in like[0].evaluated.state.items()}
    state["action_head.bias"] = torch.from_numpy(np.log(frequency)).to(torch.float32)
    pattern = like[0].evaluated
    num_features = len(pattern.feature_names)
    model = AssetModel(
        state=state,
        model_sha256=hashlib.sha256(serialise_weights(state)).hexdigest(),
        anchor=newest,
        trained_until=None,
        scaler=Scaler(mean=np.zeros(num_features), scale=np.ones(num_features)),
        return_target=ReturnTarget(unit="fraction", mean=0.0, scale=1.0),
        data=pattern.data,
        model=pattern.model,
        feature_names=pattern.feature_names,
    )
    facts = _naive_facts(like[0], run_id)
    nothing = like[0].predictions.slice(0, 0)
    return [
        AssetPart(ticker=ticker, evaluated=model, served=model, facts=facts, predictions=nothing)
        for ticker in sorted(tickers)
    ]


def _naive_facts(like: AssetPart, run_id: str) -> dict[str, Any]:
    """An asset's entry in the manifest: everything that is measured is undefined, for nothing was."""
    no_windows = {"first": None, "last": None, "num_windows": 0, "actions": dict.fromkeys(ACTIONS, 0)}
    nothing: pa.Table = like.predictions.slice(0, 0)
    losses = dict.fromkeys(("train_loss", "val_loss", "overfit_gap", "overfit_ratio"))
    horizon = like.evaluated.data.horizon
    return {
        **like.facts,
        "run_id": run_id,
        "source": "naive",
        "initial_model": None,
        "splits": dict.fromkeys(SPLITS, no_windows),
        "dropped_windows": {},
        "versions": library_versions(),
        "learning_rates": [],
        "metrics": {
            **{name: evaluate_predictions(nothing, name, horizon) for name in ("val", "test")},
            **losses,
            "best_epoch": 0,
            "epochs": 0,
        },
        "refit": None,
    }
