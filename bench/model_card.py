"""The model card's tables, measured on a run: `python bench/model_card.py RUNS/<run_id>` prints Markdown.

All windows of all assets are pooled, as on the card, with the baselines beside each number. Means over assets carry the
standard error over assets, which share a market and so are not independent.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from b3dist.training.metrics import evaluate_part

CARD_ACTION = {"accuracy": 0.913, "macro_f1": 0.411, "weighted_f1": 0.946}
CARD_CLASSES = {"buy": (0.080, 0.652, 0.143), "sell": (0.997, 0.915, 0.954), "hold": (0.075, 0.772, 0.136)}
CARD_PRICE = {
    "r2": {"val": 0.9982, "test": 0.9983},
    "mae": {"val": 1.20, "test": 1.25},
    "rmse": {"val": 5.47, "test": 5.74},
    "mape": {"val": 0.0898, "test": 0.0849},
}
CARD_LOSS = {"train_loss": 253.35, "val_loss": 8802.48, "overfit_gap": 8549.0, "overfit_ratio": 35.0}


def main() -> None:
    """Print the tables of one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder, RUNS/<run_id>")
    run: Path = parser.parse_args().run
    folders = sorted(path for path in (run / "assets").iterdir() if (path / "metrics.json").is_file())
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    frame = pd.concat([pd.read_parquet(folder / "predictions.parquet") for folder in folders], ignore_index=True)
    parts = {name: pool(frame[frame["split"] == name]) for name in ("val", "test")}
    print(f"{len(folders)} assets, {len(frame):,} validation and test windows, run `{run.name}`.")
    for table in (
        action_table(parts["test"]),
        class_table(parts["test"]),
        price_table(parts),
        return_table(metrics),
        loss_table(metrics),
    ):
        print("\n" + "\n".join(table))


def pool(part: pd.DataFrame) -> dict[str, Any]:
    """Metrics of all assets' windows taken as one part."""
    return evaluate_part({name: part[name].to_numpy() for name in part.columns if name not in ("session", "split")})


def action_table(test: dict[str, Any]) -> list[str]:
    """Overall action metrics: card, measured, and always predicting the most frequent action."""
    majority = test["baselines"]["majority"]
    rows = ["| action, test part | card | measured | always the majority |", "|---|---|---|---|"]
    for key, card in CARD_ACTION.items():
        baseline = f"{majority[key]:.3f}" if key in majority else "-"
        rows.append(f"| {key} | {card:.3f} | {test[key]:.3f} | {baseline} |")
    return rows


def class_table(test: dict[str, Any]) -> list[str]:
    """Precision, recall and F1 per class beside the card's, whose class names are swapped."""
    rows = ["| class | card, as named there | measured precision / recall / F1 | test windows |", "|---|---|---|---|"]
    for name, card in CARD_CLASSES.items():
        found = test["per_class"][name]
        measured = " / ".join(f"{found[key]:.3f}" for key in ("precision", "recall", "f1"))
        rows.append(f"| {name} | {' / '.join(f'{value:.3f}' for value in card)} | {measured} | {found['support']:,} |")
    return rows


def price_table(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Price-space errors beside persistence."""
    rows = ["| price | part | card | measured | persistence |", "|---|---|---|---|---|"]
    for key, card in CARD_PRICE.items():
        for name, part in parts.items():
            baseline = part["baselines"]["persistence"]["price"][key]
            rows.append(f"| {key} | {name} | {card[name]:.4f} | {part['price'][key]:.4f} | {baseline:.4f} |")
    return rows


def return_table(metrics: list[dict[str, Any]]) -> list[str]:
    """Return-space figures per asset: mean, standard error over assets, and how many pass the skill gate."""
    figures: dict[str, Callable[[dict[str, Any]], float | None]] = {
        "IC": lambda part: part["return"]["ic"],
        "rank IC": lambda part: part["return"]["rank_ic"],
        "R²": lambda part: part["return"]["r2"],
        "RMSE / persistence": lambda part: part["return"]["rmse"] / part["baselines"]["persistence"]["return"]["rmse"],
        "macro F1": lambda part: part["macro_f1"],
        "macro F1 of the majority": lambda part: part["baselines"]["majority"]["macro_f1"],
    }
    rows = ["| mean over assets ± standard error | val | test |", "|---|---|---|"]
    for title, figure in figures.items():
        cells = []
        for name in ("val", "test"):
            judged = [one[name] for one in metrics if one[name]["num_windows"]]  # of a pooled run a part may be empty
            values = np.array([value for part in judged if (value := figure(part)) is not None])
            cells.append(f"{values.mean():+.4f} ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}")
        rows.append(f"| {title} | {' | '.join(cells)} |")
    passed = [str(sum(one[name]["skill"]["beats_persistence"] for one in metrics)) for name in ("val", "test")]
    rows.append(f"| assets past the skill gate (by luck: {0.05 * len(metrics):.0f}) | {' | '.join(passed)} |")
    return rows


def loss_table(metrics: list[dict[str, Any]]) -> list[str]:
    """The overfitting figures: median over assets."""
    rows = ["| loss | card | median over assets |", "|---|---|---|"]
    for key, card in CARD_LOSS.items():
        rows.append(f"| {key} | {card:,.2f} | {np.median([one[key] for one in metrics if one[key] is not None]):.2f} |")
    return rows


if __name__ == "__main__":
    main()
