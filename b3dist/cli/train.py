"""`b3dist train`: one asset, one process, no Ray."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from b3dist.cli.options import (
    DEFAULT_LAKE,
    FromSession,
    LakeOption,
    Overrides,
    PrecisionOption,
    Recipe,
    RecipeFile,
    Seed,
    ToSession,
    build_config,
)
from b3dist.cli.output import Answer, Debug, Json, answers
from b3dist.errors import StorageError

if TYPE_CHECKING:
    from b3dist.training.asset import TrainedAsset


@answers
def train(
    ticker: Annotated[str, typer.Argument(help="The asset, e.g. PETR4.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that receives OUT/TICKER.")] = Path("models"),
    lake: LakeOption = DEFAULT_LAKE,
    recipe: Recipe = "card",
    recipe_file: RecipeFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    from_session: FromSession = None,
    to_session: ToSession = None,
    min_sessions: Annotated[int | None, typer.Option(help="Refuse assets with fewer sessions (default 1000).")] = None,
    precision: PrecisionOption = None,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Train one asset without Ray: b3dist train PETR4 --lake lake --out models."""
    from b3dist.data.lake import Lake

    config = build_config(
        recipe,
        recipe_file=recipe_file,
        overrides=overrides,
        seed=seed,
        from_session=from_session,
        to_session=to_session,
        min_sessions=min_sessions,
        precision=precision,
    )
    opened = Lake(lake)
    opened.bars(ticker, ["session"])  # an unknown ticker is said before PyTorch is loaded
    if (out / ticker).exists():  # said before the training, not after it
        raise StorageError(f"{out / ticker} exists already", hint="name another --out or remove it")
    from b3dist.training.asset import train_asset

    out.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn(f"{ticker} epoch"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(ticker, total=config.training.epochs)
        trained = train_asset(
            opened, ticker, config, out, on_epoch=lambda record: progress.update(task, completed=record.epoch)
        )
    payload = {"asset": ticker, "metrics": trained.metrics, "path": str(trained.path), "seconds": trained.seconds}
    return Answer(payload=payload, show=lambda console: _show(trained, console))


def _show(trained: "TrainedAsset", console: Console) -> None:
    from rich.table import Table

    kept = f"kept epoch {trained.metrics['best_epoch']} of {trained.epochs}"
    table = Table(title=f"{trained.ticker}: {kept}, {trained.seconds:.1f} s")
    for heading in ("part", "metric", "model", "baseline"):
        table.add_column(heading, justify="left" if heading in ("part", "metric") else "right")
    for part in ("val", "test"):
        metrics = trained.metrics[part]
        majority, persistence = metrics["baselines"]["majority"], metrics["baselines"]["persistence"]
        rows = [
            ("accuracy", metrics["accuracy"], majority["accuracy"]),
            ("macro F1", metrics["macro_f1"], majority["macro_f1"]),
            ("price MAE (BRL)", metrics["price"]["mae"], persistence["price"]["mae"]),
            ("price R²", metrics["price"]["r2"], persistence["price"]["r2"]),
            ("return RMSE", metrics["return"]["rmse"], persistence["return"]["rmse"]),
            ("return IC", metrics["return"]["ic"], None),
        ]
        for name, model, baseline in rows:
            table.add_row(part, name, *("-" if value is None else f"{value:.4f}" for value in (model, baseline)))
    console.print(table)
    console.print(f"baselines: most frequent action; predict no change\nwritten to {trained.path}", soft_wrap=True)
