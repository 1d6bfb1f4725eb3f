"""Where a fleet's warm starts come from: a pooled run, an earlier fleet, or a release.

pooled run   the asset's bundle; of an asset that has none, the model as a whole with the scales of all assets
fleet        the asset's own bundle; one without starts from scratch
release      the asset's evaluated model; one without starts from scratch
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from b3dist.config import Config, TrainingConfig
from b3dist.distributed.pooled.folder import MODEL_FOLDER
from b3dist.errors import B3distError, ConfigError, RunError, SourceGoneError
from b3dist.run_folder import RunFolder, advise_on_models, bundle_folders, is_driven, read_run_config, resume_command

if TYPE_CHECKING:  # imported in the workers only
    from b3dist.data.lake import Lake
    from b3dist.release import Release
    from b3dist.training.asset import TrainedAsset
    from b3dist.training.warm_start import InitialModel, InitialModels

INIT_FROM = "init_from"
"""The option of a run's settings that keeps what its models start from."""
WARM_EPOCHS, WARM_LEARNING_RATE = 10, 1e-4
"""Of a warm start unless set: the card's rate of 1e-3 undoes part of what was learned (docs/LOG.md, warm starts)."""


@dataclass(frozen=True, kw_only=True)
class InitialSource:
    """A run or release that models are started from."""

    kind: Literal["run", "release"]
    path: Path

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.kind} {self.path.name}"

    @property
    def is_pooled(self) -> bool:
        """Whether it is a pooled run, which assets without a model of their own can fall back on."""
        return self.kind == "run" and (self.path / MODEL_FOLDER).is_dir()

    def to_option(self) -> dict[str, str]:
        """What a run's settings keep."""
        return {"kind": self.kind, "path": str(self.path)}

    @classmethod
    def of_run(cls, run: RunFolder) -> "InitialSource | None":
        """The source of a run that was started with one.

        Raises:
            RunError: its config.json is damaged.
        """
        option = run.settings.options.get(INIT_FROM)
        try:
            return None if option is None else cls(kind=option["kind"], path=Path(option["path"]))
        except (KeyError, TypeError) as error:
            raise RunError(f"{run.path / 'config.json'} is damaged: options.{INIT_FROM} is {option!r}") from error


def find_source(name: str, *, runs: Path, releases: Path) -> InitialSource:
    """The run, or else the release (or alias), of a name.

    Raises:
        RunError: there is neither.
    """
    if (runs / name / "config.json").is_file():
        return InitialSource(kind="run", path=(runs / name).resolve())
    from b3dist.release import ReleaseStore

    try:
        return InitialSource(kind="release", path=releases.resolve() / ReleaseStore(releases).resolve(name))
    except B3distError as error:
        raise RunError(
            f"there is no run {name!r} in {runs}, and {error.message}", hint="b3dist runs list; b3dist release list"
        ) from error


def warm_config(source: InitialSource, recipe: Config | None = None) -> Config:
    """The configuration a warm start begins with: the source's question and cut, the card's training, short and slow.

    A pooled model's calendar cut comes along, also with a recipe of one's own: with another one, an asset could be
    tested on sessions that the pooled model was trained on.

    Raises:
        RunError: the source trained nothing, or is damaged.
    """
    trained = source_config(source)
    if recipe is not None:
        data = dataclasses.replace(
            recipe.data, validation_from=trained.data.validation_from, test_from=trained.data.test_from
        )
        return dataclasses.replace(recipe, data=data)
    data = dataclasses.replace(trained.data, from_session=None, to_session=None)
    training = TrainingConfig(epochs=WARM_EPOCHS, learning_rate=WARM_LEARNING_RATE)
    return Config(data=data, model=trained.model, loss=trained.loss, training=training, seed=trained.seed)


@dataclass(frozen=True)
class WarmTrainer:
    """Trains an asset in a worker, starting from a source that is opened there once."""

    source: InitialSource
    device: str = "cpu"

    def __call__(self, lake: "Lake", ticker: str, config: Config, assets_dir: Path) -> "TrainedAsset":
        """As `b3dist.training.asset.train_asset`."""
        from b3dist.training.asset import train_asset

        return train_asset(lake, ticker, config, assets_dir, device=self.device, initial_models=self.initial_models())

    def initial_models(self) -> "InitialModels":
        """What gives each asset its initial model."""
        return open_source(self.source)


def check_source(source: InitialSource) -> Config:
    """Make sure, before anything is started, that models can be had from a source.

    Returns:
        The configuration that they were trained with.

    Raises:
        RunError, ReleaseError: the source is gone or damaged, trained nothing, or is being driven.
    """
    open_source(source)
    if source.kind == "run" and is_driven(source.path):
        raise RunError(
            f"{source.name} is still being trained: which models it gives would depend on the moment",
            hint="wait until it has finished",
        )
    return source_config(source)


def open_source(source: InitialSource) -> "InitialModels":
    """What gives each asset its initial model.

    Raises:
        SourceGoneError: there is no such folder.
        RunError, ReleaseError: the source is damaged, or a pooled run that has no model yet.
    """
    if source.kind == "run":
        content = read_run_config(source.path)
        if content is None:
            raise _gone(source)
        is_pooled = content["kind"] == "pooled"
        if is_pooled and not (source.path / MODEL_FOLDER).is_dir():
            raise RunError(
                f"{source.name} has no model yet",
                hint=resume_command(source.path, "pooled"),
            )
        return functools.partial(_of_run, source)
    if not source.path.is_dir():
        raise _gone(source)
    return functools.partial(_of_release, _open_release(source.path))


@functools.lru_cache(maxsize=1)
def _open_release(path: Path) -> "Release":
    from b3dist.release import ReleaseStore

    return ReleaseStore(path.parent).open(path.name)


def _gone(source: InitialSource) -> SourceGoneError:
    return SourceGoneError(
        f"the {source.name} that models are to start from is gone: there is no {source.path}",
        hint="put it back, or start a new run",
    )


def _of_run(source: InitialSource, ticker: str) -> "InitialModel | None":
    from b3dist.training.bundle import read_bundle
    from b3dist.training.warm_start import InitialModel

    folders = [source.path / "assets" / ticker, source.path / MODEL_FOLDER]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None and not (source.path / "config.json").is_file():  # deleted since it was opened
        raise _gone(source)
    if folder is None:
        return None
    bundle = read_bundle(folder)
    return InitialModel.of_facts(
        bundle.facts,
        state=bundle.model.state_dict(),
        anchor=bundle.facts["anchor"],
        model_sha256=bundle.facts["model_sha256"],
        origin=f"{source.name}, {folder.name}",
        scaler=bundle.scaler,
        return_target=bundle.return_target,
        trained_until=bundle.trained_until,
    )


def _of_release(release: "Release", ticker: str) -> "InitialModel | None":
    from b3dist.training.warm_start import InitialModel

    asset = release.assets.get(ticker)
    if asset is None or asset.source == "naive":
        return None
    model = asset.evaluated
    assert model.trained_until is not None, "only a naive model was trained on nothing"
    return InitialModel.of_facts(
        asset.facts,
        state=release.state(model),
        anchor=model.anchor.isoformat(),
        model_sha256=model.model_sha256,
        origin=f"release {release.release_id}, {ticker}",
        scaler=model.scaler,
        return_target=model.return_target,
        trained_until=model.trained_until,
    )


def source_config(source: InitialSource) -> Config:
    """The configuration that the source's models were trained with, cuts filled in.

    Raises:
        RunError: the source trained nothing, or is damaged.
    """
    if source.kind == "release":
        from b3dist.release.seal import read_manifest

        manifest, _ = read_manifest(source.path)
        return Config.from_dict(next(iter(manifest["assets"].values()))["config"])
    for folder in [source.path / MODEL_FOLDER, *bundle_folders(source.path)]:
        if (folder / "bundle.json").is_file():
            return _bundle_config(folder / "bundle.json")
    kind = (read_run_config(source.path) or {}).get("kind", "fleet")
    raise RunError(f"{source.name} holds no trained model to start from", hint=advise_on_models(source.path, kind))


def _bundle_config(path: Path) -> Config:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(facts, Mapping) and isinstance(facts.get("config"), Mapping)):
            raise ValueError("it holds no config")
        return Config.from_dict(facts["config"])
    except (OSError, ValueError, ConfigError) as error:
        raise RunError(f"{path} is damaged: {error}", hint="start from another run") from error
