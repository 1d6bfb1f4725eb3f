"""Runs on disk for the report's tests: real bundles, written as a worker writes them, of seeded predictions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from b3dist.config import Config
from b3dist.data.features import FEATURE_NAMES
from b3dist.data.schema import SCHEMA_VERSION
from b3dist.data.windows import Scaler
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.training.bundle import write_bundle
from b3dist.training.metrics import evaluate_part
from b3dist.training.skill import judge_part

FEATURES = FEATURE_NAMES["v1"]


def make_predictions(windows: int, *, seed: int) -> pa.Table:
    """predictions.parquet of an asset: `windows` windows in each part, faintly informative."""
    rng = np.random.default_rng(seed)
    total = 2 * windows
    close = 20 * np.exp(np.cumsum(rng.normal(0.0003, 0.018, total + 2)))
    realised = close[2:] / close[:-2] - 1
    truth = rng.choice(3, size=total, p=[0.1, 0.15, 0.75])
    logits = rng.normal(0, 1, (total, 3)) + 1.5 * np.eye(3)[truth] + np.array([0, 0, 1.0])
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sessions = np.busday_offset(np.datetime64("2016-03-01"), np.arange(total), roll="forward")
    return pa.table(
        {
            "session": pa.array(sessions, type=pa.date32()),
            "split": ["val"] * windows + ["test"] * windows,
            "close": close[:-2],
            "future_close": close[2:],
            "y_action": truth.astype(np.int64),
            "y_return": realised,
            "p_buy": probability[:, 0],
            "p_sell": probability[:, 1],
            "p_hold": probability[:, 2],
            "action": probability.argmax(axis=1).astype(np.int64),
            "return_pred": 0.1 * realised + rng.normal(0, 0.004, total),
            "spans_cash_ex_date": rng.random(total) < 0.02,
        }
    )


def make_bundle(folder: Path, *, windows: int = 60, epochs: int = 5, seed: int = 0) -> Path:
    """A trained asset's folder whose metrics are those of its predictions."""
    predictions = make_predictions(windows, seed=seed)
    metrics: dict[str, Any] = {}
    splits = {}
    for name in ("val", "test"):
        part = predictions.filter(pa.compute.equal(predictions["split"], name))
        columns = {
            column: part[column].to_numpy() for column in part.column_names if column not in ("session", "split")
        }
        evaluated = evaluate_part(columns)
        skill = judge_part(columns["y_return"], columns["return_pred"], horizon=2, ic=evaluated["return"]["ic"])
        metrics[name] = {**evaluated, "skill": skill}
        first, last = str(part["session"][0]), str(part["session"][-1])
        splits[name] = {"first": first, "last": last, "num_windows": windows}
    metrics |= {"train_loss": 1.5, "val_loss": 2.0, "overfit_gap": 0.5, "overfit_ratio": 4 / 3}
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(
        folder,
        facts={
            "schema_version": SCHEMA_VERSION,
            "ticker": folder.name,
            "config": Config().to_dict(),
            "seed": 0,
            "feature_set": "v1",
            "feature_names": list(FEATURES),
            "label_set": "signal_cluster",
            "scaler": {"mean": [0.0] * len(FEATURES), "scale": [1.0] * len(FEATURES)},
            "anchor": "2016-02-26",
            "splits": splits,
            "lake_manifest_hash": "ab" * 32,
        },
        model=LstmMtl(len(FEATURES), Config().model),
        scaler=Scaler(mean=np.zeros(len(FEATURES)), scale=np.ones(len(FEATURES))),
        history=make_history(epochs, seed=seed),
        predictions=predictions,
        metrics={**metrics, "best_epoch": min(3, epochs), "epochs": epochs},
    )
    return folder


def make_history(epochs: int, *, seed: int) -> pa.Table:
    """history.csv with falling losses."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "epoch": np.arange(1, epochs + 1),
            "train_loss": 1.5 + np.exp(-np.arange(epochs) / 3) + rng.uniform(0, 0.05, epochs),
            "val_loss": 2.0 + np.exp(-np.arange(epochs) / 2) + rng.uniform(0, 0.1, epochs),
            "val_macro_f1": rng.uniform(0.2, 0.5, epochs),
            "val_mae": rng.uniform(0.01, 0.02, epochs),
            "learning_rate": np.full(epochs, 1e-3),
        }
    )


def make_run(
    runs: Path,
    run_id: str = "20240102-030405-abcd",
    *,
    trained: Sequence[str] = ("PETR4", "VALE3"),
    skipped: Sequence[tuple[str, str]] = (),
    failed: Sequence[tuple[str, str]] = (),
    finished: bool = True,
    windows: int = 60,
    epochs: int = 5,
    kind: str = "fleet",
) -> Path:
    """A fleet's or pooled run's folder with a ledger, and a summary if it has finished."""
    path = runs / run_id
    (path / "assets").mkdir(parents=True)
    for seed, ticker in enumerate(trained):
        make_bundle(path / "assets" / ticker, windows=windows, epochs=epochs, seed=seed)
    config = {
        "schema_version": 1,
        "run_id": run_id,
        "kind": kind,
        "created_at": "2024-01-02T03:04:05+00:00",
        "config": Config().replace_setting("training.epochs", epochs).to_dict(),
        "lake": "lake",
        "lake_manifest_hash": "ab" * 32,
        "tickers": [*trained, *(name for name, _ in (*skipped, *failed))],
        "versions": {"torch": "2"},
    }
    (path / "config.json").write_text(json.dumps(config))
    events: list[dict[str, Any]] = [{"event": "opened", "invocation": 1}]
    events += [{"event": "trained", "ticker": ticker} for ticker in trained]
    events += [{"event": "skipped", "ticker": ticker, "reason": reason} for ticker, reason in skipped]
    events += [{"event": "failed", "ticker": ticker, "error": error, "kind": "error"} for ticker, error in failed]
    write_ledger(path, events)
    if finished:
        totals = {"windows_trained": 123456, "train_seconds": 12.5, "wall_seconds": 20.25}
        tracking = {"uri": "sqlite:///mlflow.db", "run_id": "0123abcd", "not_logged": {"VALE3": "locked"}}
        summary = {"state": "finished", "totals": totals, "assets": [], "tracking": tracking}
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def warm_start(run: Path, source: str, starts: Mapping[str, tuple[str | None, int]]) -> None:
    """Make a run one whose assets started from another: by ticker the source's model, if any, and the epoch kept.

    A start's errors are a tenth above those of the weights that were kept, unless it was kept itself.
    """
    config = json.loads((run / "config.json").read_text())
    config["options"] = {"init_from": {"kind": "run", "path": f"/runs/{source}"}}
    (run / "config.json").write_text(json.dumps(config))
    for ticker, (model, kept) in starts.items():
        folder = run / "assets" / ticker
        facts, metrics = (json.loads((folder / name).read_text()) for name in ("bundle.json", "metrics.json"))
        metrics["best_epoch"] = kept
        if model is not None:
            facts["initial_model"] = {"origin": f"run {source}, {model}"}
            metrics["start"] = {
                name: {**metrics[name], "return": dict(metrics[name]["return"])} for name in ("val", "test")
            }
            for part in metrics["start"].values():
                part["return"]["rmse"] *= 1.1 if kept else 1.0
        (folder / "bundle.json").write_text(json.dumps(facts))
        (folder / "metrics.json").write_text(json.dumps(metrics))


def write_ledger(path: Path, events: Sequence[dict[str, Any]]) -> None:
    """Replace a run's ledger by these events."""
    (path / "ledger.jsonl").write_text("".join(json.dumps({"at": 0.0, **event}) + "\n" for event in events))
