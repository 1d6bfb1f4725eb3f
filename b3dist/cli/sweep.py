"""`b3dist sweep`: search hyperparameters on Ray Tune."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from b3dist.cli.fleet import (
    Address,
    EngineOrStored,
    GpusOrStored,
    LakeOrStored,
    MinSessions,
    Mlflow,
    RecipeOrStored,
    TrackingUri,
)
from b3dist.cli.options import (
    DEFAULT_LAKE,
    DEFAULT_RUNS,
    FromSession,
    Overrides,
    RecipeFile,
    RunsOption,
    Seed,
    ToSession,
    build_config,
    parse_tickers,
)
from b3dist.cli.output import Answer, Debug, Json, answers
from b3dist.cli.sweep_answer import sweep_answer
from b3dist.cli.sweep_progress import sweep_progress
from b3dist.errors import ConfigError

if TYPE_CHECKING:
    from b3dist.distributed.fleet.options import FleetOptions
    from b3dist.distributed.sweep.budget import TimeBudget
    from b3dist.distributed.sweep.folder import SweepFolder, SweepPlan

Tickers = Annotated[
    str | None, typer.Option("--tickers", help="The cohort every trial trains (default: a seeded sample).")
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", help="Hyperparameter sets to try (default 40); with --resume: more than before."),
]
Search = Annotated[
    list[str] | None,
    typer.Option(
        "--search",
        metavar="NAME[=LOW:HIGH]",
        help="One more setting to search, or another range. Repeatable. Always searched: loss.gamma=0:6, "
        "loss.action_weight=2:200, loss.return_weight=5:500, model.dropout=0:0.8. On request: "
        "training.learning_rate=0.0001:0.01, training.weight_decay=1e-05:0.001, model.hidden_size=16:256, "
        "data.lookback=16:64, data.volatility_multiple=0.5:2.",
    ),
]
Cohort = Annotated[int | None, typer.Option("--cohort", help="Size of a sampled cohort (default 10).")]
HeldOut = Annotated[
    int | None,
    typer.Option("--held-out", help="Most assets outside the cohort that judge the winner (default 20; 6 are needed)."),
]
Finalists = Annotated[int | None, typer.Option("--finalists", help="Best trials tried again (default 3).")]
Seeds = Annotated[int | None, typer.Option("--seeds", help="Fresh seeds for finalists and winner (default 3).")]
TwoObjectives = Annotated[
    bool,
    typer.Option(
        "--two-objectives", help="Search the return error relative to persistence as well; not with --per-asset."
    ),
]
PerAsset = Annotated[
    bool,
    typer.Option(
        "--per-asset",
        help="Also choose parameters for each of the cohort's assets, at least 6; not with --two-objectives.",
    ),
]
Halving = Annotated[
    bool | None,
    typer.Option(
        "--halving/--no-halving",
        help="Stop trials that are not among the best third at a third of the epochs (default: from 12 epochs and 15 "
        "trials on; never with --two-objectives or --per-asset).",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Trials, or packs of trials, that run at once (default: all cores).")
]
MaxHours = Annotated[
    float | None,
    typer.Option(
        "--max-hours",
        metavar="H",
        help="Begin no trial later than H hours from now, e.g. --max-hours 8; those that run end, then finalists and "
        "held-out assets follow, whose time is not counted. How many trials come depends on the machine, and so do the "
        "results. --resume tries the others.",
    ),
]
TrialsAtOnce = Annotated[
    int | None,
    typer.Option("--trials-at-once", help="Trials a worker trains as one stack (default: what fits and still learns)."),
]
Resume = Annotated[str | None, typer.Option("--resume", help="Go on with this sweep.")]


@answers
def sweep(
    lake: LakeOrStored = None,
    runs: RunsOption = DEFAULT_RUNS,
    tickers: Tickers = None,
    trials: Trials = None,
    max_hours: MaxHours = None,
    search: Search = None,
    cohort: Cohort = None,
    held_out: HeldOut = None,
    finalists: Finalists = None,
    seeds: Seeds = None,
    two_objectives: TwoObjectives = False,
    per_asset: PerAsset = False,
    halving: Halving = None,
    workers: Workers = None,
    gpus_per_worker: GpusOrStored = None,
    engine: EngineOrStored = None,
    trials_at_once: TrialsAtOnce = None,
    resume: Resume = None,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    mlflow: Mlflow = True,
    recipe: RecipeOrStored = None,
    recipe_file: RecipeFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    from_session: FromSession = None,
    to_session: ToSession = None,
    min_sessions: MinSessions = None,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Search hyperparameters around the recipe's, which are trial 0, and say whether anything beats them.

    Every trial is in RUNS/SWEEP_ID/journal.log: `b3dist report` draws it, and so do `optuna-dashboard journal.log` and
    optuna.visualization on its study "sweep" (docs/sweeps.md).
    """
    from b3dist.distributed.fleet.options import FleetOptions, kept_options
    from b3dist.distributed.sweep.budget import TimeBudget

    budget = None if max_hours is None else TimeBudget(max_hours)
    chosen: dict[str, Any] = {} if engine is None else {"engine": engine}
    chosen |= {} if gpus_per_worker is None else {"gpus_per_worker": gpus_per_worker}
    options = FleetOptions(
        **chosen,
        workers=workers,
        address=address,
        tracking=mlflow,
        tracking_uri=tracking_uri,
        debug=debug,
    )
    asked = {
        "trials": trials,
        "cohort_size": cohort,
        "held_out": held_out,
        "finalists": finalists,
        "seeds": seeds,
        "search": search,
        "tickers": parse_tickers(tickers),
        "two_objectives": two_objectives or None,
        "per_asset": per_asset or None,
        "halving": halving,
        "trials_at_once": trials_at_once,
    }
    request: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    training = {
        "recipe_file": recipe_file,
        "overrides": overrides,
        "seed": seed,
        "from_session": from_session,
        "to_session": to_session,
        "min_sessions": min_sessions,
    }
    if resume is None:
        request |= options.to_kept()
        folder = _new(lake or DEFAULT_LAKE, runs, recipe or "card", training, request, options)
    else:
        more = request.pop("trials", None)
        named = [*request, *(name for name, value in {"recipe": recipe, **training}.items() if value is not None)]
        if named:
            raise ConfigError(
                f"a resumed sweep keeps its settings, got {', '.join(sorted(named))}",
                hint=f"leave them out to resume {resume}, or start a new sweep",
            )
        folder = _reopened(lake, runs, resume)
        options = dataclasses.replace(options, **(kept_options(folder.run) | chosen))
        if more is not None:
            folder = _extended(folder, options, trials=more)
    from b3dist.distributed.sweep.cautions import cautions_before
    from b3dist.distributed.sweep.drive import drive_sweep

    said = [*notices(folder.plan), *cautions_before(folder.plan, folder.config), *_on_time(folder, budget)]
    for line in said:
        print(line, file=sys.stderr, flush=True)
    with _resume_said(folder, options, budget), sweep_progress() as show:
        summary = drive_sweep(folder, options, budget=budget, on_progress=show)
    return sweep_answer(folder, summary)


def _new(
    lake: Path,
    runs: Path,
    recipe: str,
    training: dict[str, Any],
    request: dict[str, Any],
    options: "FleetOptions",
) -> "SweepFolder":
    config = build_config(recipe, **training)
    from b3dist.data.lake import Lake
    from b3dist.distributed.cluster import require_device
    from b3dist.distributed.sweep.plan import SweepRequest, new_sweep

    require_device(config.training.precision, gpus_per_worker=options.gpus_per_worker, address=options.address)
    usual = build_config(recipe).training.epochs
    return new_sweep(Lake(lake), runs, config, SweepRequest(**request, recipe_epochs=usual))


def _reopened(lake: Path | None, runs: Path, sweep_id: str) -> "SweepFolder":
    """The sweep to resume, on the lake it was begun on (which may have moved, but not changed)."""
    from b3dist.distributed.selection import reopen_lake
    from b3dist.distributed.sweep.folder import SweepFolder

    folder = SweepFolder.open(runs, sweep_id)
    reopen_lake(folder.run, lake, folder.config)
    return folder


def _extended(folder: "SweepFolder", options: "FleetOptions", *, trials: int) -> "SweepFolder":
    """The same sweep with so many trials planned."""
    from b3dist.distributed.sweep.drive import require_possible
    from b3dist.distributed.sweep.plan import extend_sweep

    require_possible(folder, options)  # or else its verdict would be withdrawn for nothing
    return extend_sweep(folder, trials)


def notices(plan: "SweepPlan") -> list[str]:
    """What to know of a sweep before waiting for it: assets left out, and too few of them to adopt anything by."""
    from b3dist.tuning.evidence import FEWEST_ASSETS

    lines = [f"left out {ticker}: {reason}" for ticker, reason in plan.excluded.items()]
    if len(plan.held_out) < FEWEST_ASSETS:
        lines.append(
            f"only {len(plan.held_out)} assets are held out, at least {FEWEST_ASSETS} are needed to adopt a winner: "
            "whatever is found, the verdict will be to keep the defaults"
        )
    return lines


def _on_time(folder: "SweepFolder", budget: "TimeBudget | None") -> list[str]:
    """What to know of a search that may not take as long as it likes, or could not before."""
    from b3dist.distributed.sweep.drive import has_ended
    from b3dist.distributed.sweep.outcome import finished_summary

    finished, lines = finished_summary(folder), []
    if finished is not None:
        if has_ended(finished, budget):
            return []
        lines.append(f"sweep {finished['run_id']} was {finished['stopped']}: it goes on, then the verdict comes anew")
    if budget is not None:
        most = folder.plan.most_trainings
        lines.append(
            f"no trial begins after {budget.hours:g} hours; once those that run have ended, finalists and held-out "
            f"assets take up to {most} trainings of one asset, as long as {most / len(folder.plan.cohort):.0f} whole "
            "trials"
        )
    return lines


@contextlib.contextmanager
def _resume_said(folder: "SweepFolder", options: "FleetOptions", budget: "TimeBudget | None") -> Iterator[None]:
    from b3dist.distributed.sweep.drive import how_to_resume

    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume with: {how_to_resume(folder, options, budget)}") from None
