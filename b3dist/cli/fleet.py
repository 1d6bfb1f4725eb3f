"""`b3dist fleet`: retrain every asset of a lake on Ray."""

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from b3dist.cli.fleet_progress import fleet_progress
from b3dist.cli.fleet_result import show_result
from b3dist.cli.options import (
    DEFAULT_LAKE,
    DEFAULT_RUNS,
    FromSession,
    Overrides,
    PrecisionOption,
    RecipeFile,
    RunsOption,
    Seed,
    ToSession,
    build_config,
    parse_tickers,
)
from b3dist.cli.output import DONE, SOME_ASSETS_FAILED, Answer, Debug, Json, answers
from b3dist.errors import ConfigError
from b3dist.recipes import recipe as named_recipe

if TYPE_CHECKING:
    from b3dist.distributed.fleet.options import FleetOptions
    from b3dist.run_folder import RunFolder

LakeOrStored = Annotated[
    Path | None, typer.Option("--lake", help="The lake's folder (default: ./lake; with --resume the run's own).")
]
RecipeOrStored = Annotated[
    str | None, typer.Option("--recipe", help="Named configuration: card (the default), outcome or smoke.")
]
Tickers = Annotated[str | None, typer.Option("--tickers", help="Some assets only, e.g. PETR4,VALE3.")]
MinSessions = Annotated[int | None, typer.Option("--min-sessions", help="Skip shorter histories (default 1000).")]
FleetMinSessions = Annotated[
    int | None,
    typer.Option(
        "--min-sessions",
        help="Skip shorter histories (default 1000; with --init-from that of its models, 250 of a pooled run).",
    ),
]
Workers = Annotated[
    str | None, typer.Option("--workers", help="How many, or least:most of an elastic group (default: all cores).")
]
InitFrom = Annotated[
    str | None,
    typer.Option("--init-from", metavar="RUN|RELEASE", help="Start each asset from this pooled run, fleet or release."),
]
Releases = Annotated[Path | None, typer.Option("--releases", help="Folder of all releases (default: beside the runs).")]
GpusOrStored = Annotated[
    float | None,
    typer.Option("--gpus-per-worker", help="GPUs, or share of one, per worker (default: 0; with --resume as begun)."),
]
EngineOrStored = Annotated[
    Literal["auto", "single", "stack"] | None,
    typer.Option(
        "--engine",
        help="One asset at a time, or packs as one computation (default: auto, stack on GPUs; with --resume as begun).",
    ),
]
Resume = Annotated[str | None, typer.Option("--resume", help="Go on with this run: train only what is missing.")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster (default: RAY_ADDRESS, or a local one).")]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow tracking URI (default: mlflow.db beside the runs).")
]
Mlflow = Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="Log the run to MLflow.")]


@answers
def fleet(
    lake: LakeOrStored = None,
    runs: RunsOption = DEFAULT_RUNS,
    tickers: Tickers = None,
    min_sessions: FleetMinSessions = None,
    workers: Workers = None,
    gpus_per_worker: GpusOrStored = None,
    init_from: InitFrom = None,
    releases: Releases = None,
    engine: EngineOrStored = None,
    precision: PrecisionOption = None,
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
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Retrain every asset of a lake on Ray: one run, which can be resumed and inspected."""
    from b3dist.distributed.fleet.drive import drive_fleet
    from b3dist.distributed.fleet.initial import InitialSource, WarmTrainer
    from b3dist.distributed.fleet.options import FleetOptions, how_to_resume, kept_options
    from b3dist.run_folder import releases_beside

    chosen: dict[str, Any] = {} if engine is None else {"engine": engine}
    chosen |= {} if gpus_per_worker is None else {"gpus_per_worker": gpus_per_worker}
    options = FleetOptions(
        **chosen,
        workers=parse_workers(workers),
        address=address,
        tracking=mlflow,
        tracking_uri=tracking_uri,
        debug=debug,
    )
    asked = {
        "recipe_file": recipe_file,
        "overrides": overrides,
        "seed": seed,
        "from_session": from_session,
        "to_session": to_session,
        "min_sessions": min_sessions,
        "precision": precision,
    }
    if resume is None:
        initial = None if init_from is None else (init_from, releases or releases_beside(runs))
        run = _new(lake or DEFAULT_LAKE, runs, recipe, asked, options, tickers=parse_tickers(tickers), initial=initial)
    elif init_from is not None:
        raise ConfigError("--resume goes on from the run's own initial models", hint="leave out --init-from")
    else:
        run = _resumed(lake, runs, resume, recipe, asked, tickers=parse_tickers(tickers))
        options = dataclasses.replace(options, **(kept_options(run) | chosen))
    try:
        source = InitialSource.of_run(run)
        trainer = None if source is None else WarmTrainer(source, device="cuda" if options.gpus_per_worker else "cpu")
        with fleet_progress() as show:
            summary = drive_fleet(run, options, on_progress=show, train_asset=trainer)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume with: {how_to_resume(run, options)}") from None
    fallback = source.path if source is not None and source.is_pooled else None
    return _answer(run.path, summary, resumed=resume is not None, fallback=fallback)


def _new(
    lake: Path,
    runs: Path,
    recipe: str | None,
    asked: dict[str, Any],
    options: "FleetOptions",
    *,
    tickers: list[str] | None,
    initial: tuple[str, Path] | None,
) -> "RunFolder":
    """A new run; `initial` names where its models start, and the folder of releases that may be in."""
    from b3dist.data.lake import Lake
    from b3dist.distributed.cluster import require_device
    from b3dist.distributed.fleet.initial import INIT_FROM, check_source, find_source, warm_config
    from b3dist.distributed.selection import new_run
    from b3dist.training.question import require_same_question

    kept = options.to_kept()
    if initial is None:
        config = build_config(recipe or "card", **asked)
    else:
        source = find_source(initial[0], runs=runs, releases=initial[1])
        trained = check_source(source)
        base = warm_config(source, None if recipe is None else named_recipe(recipe))
        config = build_config(recipe or "card", **asked, base=base)
        require_same_question(trained, config)
        kept[INIT_FROM] = source.to_option()
    require_device(config.training.precision, gpus_per_worker=options.gpus_per_worker, address=options.address)
    return new_run(Lake(lake), runs, config, tickers=tickers, options=kept)


def _resumed(
    lake: Path | None,
    runs: Path,
    run_id: str,
    recipe: str | None,
    asked: dict[str, Any],
    *,
    tickers: list[str] | None,
) -> "RunFolder":
    """The run to resume; whatever is named again must be what it was begun with."""
    from b3dist.distributed.selection import choose_tickers, reopen_lake
    from b3dist.run_folder import RunFolder

    unchanged = recipe is None and all(option is None for option in asked.values())
    config = None if unchanged else build_config(recipe or "card", **asked)
    run = RunFolder.open(runs, run_id)
    kind = run.settings.kind
    if kind != "fleet":
        raise ConfigError(f"run {run_id} is of kind {kind}, not a fleet", hint=run.how_to_resume())
    opened = reopen_lake(run, lake, config)
    if tickers is not None and choose_tickers(opened, tickers) != list(run.settings.tickers):
        raise ConfigError(
            f"run {run_id} was started with other tickers ({len(run.settings.tickers)} of them)",
            hint="leave out --tickers to resume it, or start a new run",
        )
    return run


def parse_workers(text: str | None) -> int | tuple[int, int] | None:
    """`4` or `2:8`.

    Raises:
        ConfigError: anything else.
    """
    if text is None:
        return None
    try:
        least, separator, most = text.partition(":")
        return (int(least), int(most)) if separator else int(least)
    except ValueError:
        raise ConfigError(f"cannot read --workers {text!r}", hint="a number like 4, or least:most like 2:8") from None


def _answer(path: Path, summary: dict[str, Any], *, resumed: bool, fallback: Path | None = None) -> Answer:
    """The verb's answer; `fallback` is the pooled run that the assets began from."""
    totals = summary["totals"]
    names = ("trained", "skipped", "failed", "windows_trained", "train_seconds", "wall_seconds")
    payload = {"run_id": summary["run_id"], "path": str(path), **{name: totals[name] for name in names}}
    if resumed:
        payload |= {name: totals[name] for name in ("already_done", "already_skipped")}
    exit_code = SOME_ASSETS_FAILED if totals["failed"] else DONE
    starts = {"starts": summary["starts"]} if "starts" in summary else {}
    return Answer(
        payload=payload | starts,
        show=lambda console: _show(console, summary, payload, fallback),
        exit_code=exit_code,
    )


def _show(console: Console, summary: dict[str, Any], totals: dict[str, Any], fallback: Path | None) -> None:
    table = Table(show_header=False, box=None)
    for name, value in totals.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    console.print(table)
    for entry in summary["assets"]:
        if entry["state"] == "failed":
            console.print(f"{entry['ticker']} failed: {entry['error']}", markup=False, soft_wrap=True)
    reasons = [f"{entry['ticker']}: {entry['reason']}" for entry in summary["assets"] if entry["state"] == "skipped"]
    if reasons:
        console.print(f"skipped by rule, e.g. {reasons[0]} (all in summary.json)", markup=False)
    if reasons and fallback is not None:
        console.print(advise_fallback(summary["run_id"], fallback), markup=False, soft_wrap=True)
    show_result(console, Path(totals["path"]), summary["assets"])


def advise_fallback(run_id: str, fallback: Path) -> str:
    """How the assets that a fleet skipped are served by the pooled run it began from."""
    command = ["b3dist", "release", "create", run_id, "--fallback", fallback.name, "--runs", str(fallback.parent)]
    how = "what was skipped is served by the pooled model, or else the naive forecast, in a release made with"
    return f"{how}: {shlex.join(command)}"
