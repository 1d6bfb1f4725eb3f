"""Where and how a fleet runs, and a sweep: what the command line gives, what a run keeps of it, what resumes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from b3dist.distributed.cluster import attaches
from b3dist.errors import ConfigError, RunError
from b3dist.run_folder import RunFolder

Engine = Literal["auto", "single", "stack"]


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """Where and how a fleet runs; of the numbers only `engine` changes anything, and only within float error."""

    workers: int | tuple[int, int] | None = None
    """How many, or least and most of an elastic group; None: as many as the cluster holds."""
    gpus_per_worker: float = 0.0
    """Share of a GPU per worker; 0 trains on CPUs, one core each."""
    engine: Engine = "auto"
    """single: one asset after another; stack: packs of assets as one computation; auto: stack on GPUs."""
    address: str | None = None
    """GCS address of a running cluster, or "local" for a private one; None: RAY_ADDRESS, or else "local"."""
    tracking: bool = True
    """Log to MLflow."""
    tracking_uri: str | None = None
    """MLflow tracking URI; None: mlflow.db beside the runs."""
    debug: bool = False
    """Show the workers' output."""

    def __post_init__(self) -> None:
        least, most = self.worker_range or (1, 1)
        if least < 1 or most < least:
            asked = f"{least}:{most}" if isinstance(self.workers, tuple) else self.workers
            raise ConfigError(
                f"workers must be at least 1 and least:most in order, got {asked}", hint="--workers 4 or 2:8"
            )
        if not 0 <= self.gpus_per_worker <= 64:
            raise ConfigError(f"gpus per worker must be between 0 and 64, got {self.gpus_per_worker:g}")
        if isinstance(self.workers, tuple) and self.gpus_per_worker % 1:
            # Ray's elastic policy divides resources with //, and 1.0 // 0.05 is 19.
            raise ConfigError(
                f"an elastic number of workers needs whole GPUs per worker, got {self.gpus_per_worker:g}",
                hint="give a fixed --workers N, or a whole --gpus-per-worker",
            )

    @property
    def stacks(self) -> bool:
        """Whether the workers train packs of assets as one computation."""
        return self.engine == "stack" or (self.engine == "auto" and self.gpus_per_worker > 0)

    def to_kept(self) -> dict[str, Any]:
        """What a new run's settings keep, so that a resumed one trains the rest the same way."""
        return {"engine": "stack" if self.stacks else "single", "gpus_per_worker": self.gpus_per_worker}

    def to_given(self, *, kept: Mapping[str, Any]) -> dict[str, object]:
        """By option of the command line, what a run that keeps `kept` must be told again to go on like this."""
        least, most = self.worker_range or (None, None)
        engine = "stack" if self.stacks else "single"
        return {
            "--workers": most if least == most else f"{least}:{most}",
            "--gpus-per-worker": None
            if self.gpus_per_worker == kept.get("gpus_per_worker", 0.0)
            else f"{self.gpus_per_worker:g}",
            "--engine": None if engine == kept.get("engine", "single") else engine,
            "--address": self.address,
            "--tracking-uri": self.tracking_uri,
            "--no-mlflow": not self.tracking,
        }

    @property
    def attaches(self) -> bool:
        """Whether the fleet runs on a cluster that is there already."""
        return attaches(self.address)

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """Least and most workers; None if the cluster decides."""
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers


def kept_options(run: RunFolder) -> dict[str, Any]:
    """Those of FleetOptions that decide a run's bits, as it was begun with; empty for a run that keeps none.

    Raises:
        RunError: its config.json is damaged.
    """
    options = run.settings.options
    kept = {name: options[name] for name in ("engine", "gpus_per_worker") if name in options}
    if kept.get("engine", "single") not in ("single", "stack") or not isinstance(
        kept.get("gpus_per_worker", 0.0), int | float
    ):
        raise RunError(f"{run.path / 'config.json'} is damaged: options are {kept}", hint="start a new run")
    return kept


def how_to_resume(run: RunFolder, options: FleetOptions) -> str:
    """The command that goes on with a fleet just as it was driven."""
    return run.how_to_resume(options.to_given(kept=run.settings.options))
