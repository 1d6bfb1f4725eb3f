"""`b3dist release create / promote / rollback / list / show`: what the fleet's models are served from."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from b3dist.cli.options import DEFAULT_RUNS, RunsOption
from b3dist.cli.output import DONE, SOME_ASSETS_FAILED, Answer, Debug, Json, answers
from b3dist.cli.refit_progress import refit_progress

if TYPE_CHECKING:
    from b3dist.release import Moved, Release, ReleaseStore
    from b3dist.release.promotion import Mirror
    from b3dist.run_folder import RunFolder

release_app = typer.Typer(name="release", no_args_is_help=True, help="Releases of a whole fleet, and which is served.")

ReleasesOption = Annotated[
    Path | None, typer.Option("--releases", help="Folder of all releases (default: releases, beside the runs).")
]
ReleaseId = Annotated[str, typer.Argument(metavar="ID", help="A release, or champion or challenger.")]
AliasOption = Annotated[Literal["champion", "challenger"], typer.Option("--alias", help="Which alias to move.")]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow tracking URI (default: mlflow.db beside the runs).")
]
Mlflow = Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="Mirror the aliases to MLflow.")]


def open_store(releases: Path | None, runs: Path) -> "ReleaseStore":
    """The folder of all releases: as given, or beside the runs."""
    from b3dist.release import ReleaseStore
    from b3dist.run_folder import releases_beside

    return ReleaseStore(releases if releases is not None else releases_beside(runs))


@release_app.command("create", epilog="Example: b3dist release create RUN_ID --refit --runs runs")
@answers
def create(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The run, as `b3dist runs list` names it.")],
    runs: RunsOption = DEFAULT_RUNS,
    releases: ReleasesOption = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Serve weights trained again on all rows, as long as the best epoch.")
    ] = False,
    lake: Annotated[Path | None, typer.Option("--lake", help="To refit on (default: the run's own).")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that refit (default: one per core).")
    ] = None,
    carry_over: Annotated[
        bool,
        typer.Option("--carry-over/--no-carry-over", help="Keep the champion's model of assets the run has none of."),
    ] = True,
    fallback: Annotated[
        str | None,
        typer.Option("--fallback", metavar="POOLED_RUN", help="Cover the assets without a model: pooled, else naive."),
    ] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Make a release of a run: every asset's best weights in one folder that never changes."""
    if lake is not None and not refit:
        raise typer.BadParameter("--lake is for --refit only", param_hint="--lake")
    from b3dist.distributed.fleet.initial import InitialSource, open_source
    from b3dist.release import Refitting, create_release
    from b3dist.release.build import why_untrained
    from b3dist.release.parts import keeps_start
    from b3dist.run_folder import RunFolder

    store = open_store(releases, runs)
    run = RunFolder.open(runs, run_id)
    begun_from = InitialSource.of_run(run) if refit else None
    models = open_source(begun_from) if begun_from is not None else None
    with refit_progress(shown=refit) as show:
        refitting = Refitting(lake=lake, workers=workers, initial_models=models, on_progress=show) if refit else None
        below = RunFolder.open(runs, fallback) if fallback is not None else None
        warnings = _differences(run, below) if below is not None else []
        for warning in warnings:
            print(f"b3dist: {warning}", file=sys.stderr)
        release = create_release(store, run, refit=refitting, carry_over=carry_over, fallback=below)
    failed = release.manifest["refit_failed"]
    for ticker, reason in failed.items():
        print(f"b3dist: {ticker} was not refitted: {reason}", file=sys.stderr)
    payload = {**_facts(release, ()), "refit_failed": failed, "not_covered": release.manifest["not_covered"]}
    payload |= {"ladder": release.manifest["ladder"], "warnings": warnings}
    carried = why_untrained(run, [ticker for ticker, asset in release.assets.items() if asset.carried_over])
    payload["carried_over_assets"] = carried
    unimproved = sum(keeps_start(asset.facts) and not asset.carried_over for asset in release.assets.values())

    def display(console: Console) -> None:
        _show_facts(console, payload, ("release_id", "run_id", "assets", "refitted", "carried_over", "path"))
        own, pooled, naive = (payload["ladder"][name] for name in ("own", "pooled", "naive"))
        if pooled or naive:
            models = f"{own} assets have a model of their own, {pooled} the pooled one, {naive} none"
            console.print(models, markup=False, soft_wrap=True)
        kept = unimproved if refit else 0
        for line in _weights_explained(carried, refit=release.manifest["refit"], kept=kept):
            console.print(line, markup=False, soft_wrap=True)
        command = ["b3dist", "release", "promote", release.release_id, "--runs", str(runs)]
        command += ["--releases", str(releases)] if releases is not None else []
        console.print(f"serve it with: {shlex.join(command)}", soft_wrap=True, markup=False)

    return Answer(payload=payload, show=display, exit_code=SOME_ASSETS_FAILED if failed else DONE)


@release_app.command("promote", epilog="Example: b3dist release promote ID --alias champion")
@answers
def promote(
    release_id: ReleaseId,
    runs: RunsOption = DEFAULT_RUNS,
    releases: ReleasesOption = None,
    alias: AliasOption = "champion",
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="How much worse than the champion either score may be (default 0.02)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote all the same; says what it overrides.")] = False,
    tracking_uri: TrackingUri = None,
    mlflow: Mlflow = True,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Make a release champion (or challenger) in one step; refused if worse than the champion, or covering less."""
    from b3dist.release import promote as move
    from b3dist.release.gate import DEFAULT_MARGIN

    store = open_store(releases, runs)
    moved = move(
        store,
        release_id,
        alias=alias,
        margin=DEFAULT_MARGIN if margin is None else margin,
        force=force,
        mirror=_mirror(store, runs, tracking_uri) if mlflow else None,
        on_moved=_say_moved if mlflow else None,
    )
    return _moved(moved)


@release_app.command("rollback", epilog="Example: b3dist release rollback --runs runs")
@answers
def rollback(
    runs: RunsOption = DEFAULT_RUNS,
    releases: ReleasesOption = None,
    alias: AliasOption = "champion",
    tracking_uri: TrackingUri = None,
    mlflow: Mlflow = True,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Move an alias back to the release it pointed to before: the very same bytes."""
    from b3dist.release import rollback as move_back

    store = open_store(releases, runs)
    moved = move_back(
        store,
        alias=alias,
        mirror=_mirror(store, runs, tracking_uri) if mlflow else None,
        on_moved=_say_moved if mlflow else None,
    )
    return _moved(moved)


@release_app.command("list", epilog="Example: b3dist release list --runs runs")
@answers
def list_(
    runs: RunsOption = DEFAULT_RUNS,
    releases: ReleasesOption = None,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """Every release, newest first."""
    store = open_store(releases, runs)
    found = [{**asdict(info), "alias": next(iter(info.aliases), None)} for info in store.list()]
    champion = next((info for info in found if "champion" in info["aliases"]), None)
    payload = {
        **{name: champion[name] if champion else None for name in ("release_id", "alias", "assets")},
        "releases": found,
    }

    def show(console: Console) -> None:
        if not found:
            console.print(f"no releases in {store.path}", markup=False, soft_wrap=True)
            return
        whole = (Column(name, no_wrap=True) for name in ("release", "run"))  # an id cut short is of no use
        table = Table(*whole, "alias", "assets", "carried over", "refit", box=None)
        for info in found:
            numbers = [str(info[name]) for name in ("assets", "carried_over")]
            refit = "yes" if info["refit"] else ""
            table.add_row(info["release_id"], info["run_id"], ", ".join(info["aliases"]), *numbers, refit)
        console.print(table)
        for info in found:
            if info["problem"]:
                console.print(f"{info['release_id']} cannot be used: {info['problem']}", markup=False, soft_wrap=True)

    return Answer(payload=payload, show=show)


@release_app.command("show", epilog="Example: b3dist release show champion --runs runs")
@answers
def show(
    release_id: ReleaseId = "champion",
    runs: RunsOption = DEFAULT_RUNS,
    releases: ReleasesOption = None,
    json_output: Json = False,
    debug: Debug = False,
) -> Answer:
    """A release's model card; with --json everything its manifest says. Every file is verified by hash."""
    store = open_store(releases, runs)
    release = store.open(release_id)
    pointing = tuple(alias for alias, pointed in store.aliases().items() if pointed == release.release_id)
    payload = {**_facts(release, pointing), "manifest": release.manifest, "card": release.card}
    return Answer(payload=payload, show=lambda console: console.print(release.card, markup=False, soft_wrap=True))


def _differences(run: "RunFolder", fallback: "RunFolder") -> list[str]:
    """What is allowed of a fallback, but should be known."""
    ours, theirs = run.settings.lake_manifest_hash, fallback.settings.lake_manifest_hash
    if ours == theirs:
        return []
    return [
        f"the pooled run {fallback.run_id} was trained on another lake, or another state of it, than {run.run_id}:"
        f" manifest {theirs[:12]}, not {ours[:12]}"
    ]


def _weights_explained(carried: Sequence[Mapping[str, str]], *, refit: bool, kept: int) -> list[str]:
    """What the release serves, then each asset that was carried over and why the run has no model of it.

    Args:
        carried: `why_untrained` of the assets carried over.
        refit: whether any weights were trained again.
        kept: of how many assets they were not, since no epoch had improved on their start.
    """
    weights = "weights trained again on all rows" if refit else "each asset's evaluated weights"
    if kept:
        weights += f" ({kept} assets kept the weights they began from, so there was nothing to train again)"
    if not carried:
        return [f"it serves {weights}"]
    reasons = [f", {entry['reason']}" if entry["reason"] else "" for entry in carried]
    return [
        f"it serves {weights}; an asset carried over keeps what the champion served:",
        *(f"  {entry['ticker']}: {entry['state']}{reason}" for entry, reason in zip(carried, reasons, strict=True)),
    ]


def _facts(release: "Release", aliases: tuple[str, ...]) -> dict[str, Any]:
    return {
        "release_id": release.release_id,
        "alias": next(iter(aliases), None),
        "aliases": list(aliases),
        "assets": len(release.assets),
        "run_id": release.manifest["run_id"],
        "refitted": sum(asset.served is not asset.evaluated for asset in release.assets.values()),
        "carried_over": sum(asset.carried_over for asset in release.assets.values()),
        "manifest_sha256": release.manifest_sha256,
        "path": str(release.path),
    }


def _mirror(store: "ReleaseStore", runs: Path, tracking_uri: str | None) -> "Mirror":
    from b3dist.release.aliases import ALIASES, Pointer
    from b3dist.tracking import default_uri
    from b3dist.tracking.registry import mirror_aliases

    def mirror(current: Mapping[str, Pointer]) -> None:
        pointed = {alias: (pointer.release_id, pointer.manifest_sha256) for alias, pointer in current.items()}
        mirror_aliases(pointed, uri=tracking_uri or default_uri(runs), releases=store.path, known=ALIASES)

    return mirror


def _say_moved(moved: "Moved") -> None:
    """Says at once that the alias moved: MLflow, told after it, may take minutes to be given up on."""
    print(f"{moved.alias} is {moved.release_id}", file=sys.stderr)
    print("mirroring to MLflow ...", file=sys.stderr, flush=True)


def _moved(moved: "Moved") -> Answer:
    for objection in moved.overridden:
        print(f"b3dist: --force overrides: {objection}", file=sys.stderr)
    if moved.mirror_error is not None:
        print(f"b3dist: MLflow does not say so yet: {moved.mirror_error}", file=sys.stderr)
    comparison = moved.comparison
    payload = {
        **asdict(moved),
        "overridden": list(moved.overridden),
        "comparison": comparison.to_dict() if comparison else None,
    }

    def show(console: Console) -> None:
        before = f", which was {moved.before}" if moved.before not in (None, moved.release_id) else ""
        console.print(
            f"{moved.alias} is {moved.release_id} ({moved.assets} assets){before}", markup=False, soft_wrap=True
        )
        for score in comparison.scores if comparison else ():
            console.print(f"{score}", markup=False, soft_wrap=True)

    return Answer(payload=payload, show=show)


def _show_facts(console: Console, payload: dict[str, Any], names: tuple[str, ...]) -> None:
    table = Table(show_header=False, box=None)
    for name in names:
        table.add_row(name.replace("_", " "), str(payload[name]))
    console.print(table)
