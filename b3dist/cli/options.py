"""Options that several verbs share, and the configuration they add up to."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
import yaml

from b3dist.config import Config, Precision
from b3dist.errors import ConfigError
from b3dist.recipes import recipe

LakeOption = Annotated[Path, typer.Option("--lake", help="The lake's folder.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]
Recipe = Annotated[str, typer.Option("--recipe", help="Named configuration: card, outcome, smoke or pooled.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe-file", help="YAML with settings, laid over the recipe.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One setting, e.g. --set training.epochs=3. Repeatable."),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option("--precision", help="Of training's products: fp32 (the default), tf32 (GPUs), bf16 (some CPUs too)."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the run (default: the recipe's).")]
FromSession = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="First session used.")
]
ToSession = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Last session used.")
]

DEFAULT_LAKE = Path("lake")
DEFAULT_RUNS = Path("runs")


def build_config(
    recipe_name: str,
    *,
    recipe_file: Path | None = None,
    overrides: list[str] | None = None,
    seed: int | None = None,
    from_session: date | None = None,
    to_session: date | None = None,
    min_sessions: int | None = None,
    precision: Precision | None = None,
    base: Config | None = None,
) -> Config:
    """The recipe (or `base`), then the recipe file, then the dedicated options, then `--set`: the later wins.

    Raises:
        ConfigError: unknown recipe or setting, unreadable file, value out of range.
    """
    config = base if base is not None else recipe(recipe_name)
    if recipe_file is not None:
        config = Config.from_dict(_read_recipe_file(recipe_file), base=config)
    dedicated = {
        "seed": seed,
        "data.from_session": _as_date(from_session),
        "data.to_session": _as_date(to_session),
        "data.min_sessions": min_sessions,
        "training.precision": precision,
    }
    for name, value in dedicated.items():
        if value is not None:
            config = config.replace_setting(name, value)
    return config.with_overrides(overrides or [])


def parse_tickers(text: str | None) -> list[str] | None:
    """`PETR4,vale3` in alphabetical order; None: all.

    Raises:
        ConfigError: it names none.
    """
    if text is None:
        return None
    names = sorted({name.strip().upper() for name in text.split(",") if name.strip()})
    if not names:
        raise ConfigError(f"--tickers {text!r} names no ticker", hint="leave --tickers out to take every asset")
    return names


def _as_date(session: date | None) -> date | None:
    return session.date() if isinstance(session, datetime) else session


def _read_recipe_file(path: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe file {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the recipe file {path} holds no settings: expected lines like 'training: {{epochs: 3}}'")
    return content
