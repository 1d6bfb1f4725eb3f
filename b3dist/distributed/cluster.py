"""Connecting to Ray: a private cluster on this machine, or one that is already there.

Importing this module starts nothing and sets nothing.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from b3dist.config import Precision
from b3dist.distributed.probe import require_cluster
from b3dist.errors import ConfigError, RunError

_OBJECT_STORE_BYTES = 128 * 2**20  # nothing big crosses the object store; Ray's default is a third of the memory

_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # how late a dead worker is noticed; 2 by default
    "RAY_TRAIN_METRICS_ENABLED": "0",  # Prometheus gauges nobody scrapes
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextlib.contextmanager
def connected(address: str | None, *, num_cpus: int, debug: bool = False) -> Iterator[Any]:
    """Ray, connected: to `address` or RAY_ADDRESS if given, else to a new cluster on the loopback interface.

    Leaves the cluster as it was found: a connection that exists already is used and kept.

    Args:
        address: GCS address of a running cluster, or "local" for a private one; None for RAY_ADDRESS, then "local".
        num_cpus: logical CPUs of a private cluster.
        debug: show the workers' output and Ray's own messages.

    Raises:
        RunError: Ray did not start, or there is no cluster at the address.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    chosen = _chosen(address)
    private = chosen == "local"
    import ray

    if ray.is_initialized():
        yield ray
        return
    if not private:
        require_cluster(chosen)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    quiet = {"log_to_driver": debug, "logging_level": logging.INFO if debug else logging.ERROR}
    try:
        if not private:
            ray.init(address=chosen, **quiet)
        else:
            _bind_to_loopback()
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **quiet,
            )
            _protect_token()
        _quieten(debug=debug)
    except SystemExit as stop:
        # Ray's own SIGTERM handler, in place until ours are taken back, says so with SystemExit.
        _restore(handlers)
        ray.shutdown()
        raise KeyboardInterrupt from stop
    except KeyboardInterrupt:
        _restore(handlers)
        ray.shutdown()
        raise
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = "a cluster of its own" if private else f"the cluster at {chosen}"
        raise RunError(f"cannot connect Ray to {where}: {error}", hint="check --address and RAY_ADDRESS") from error
    try:
        _restore(handlers)
        yield ray
    finally:
        ray.shutdown()


def attaches(address: str | None) -> bool:
    """Whether `connected` uses a cluster that is there already, as far as the address tells."""
    return _chosen(address) != "local"


def require_device(precision: Precision, *, gpus_per_worker: float, address: str | None) -> None:
    """Refuse what no worker can train, before a run is made and before Ray starts; of a cluster little is known yet.

    Raises:
        ConfigError: a precision that the device lacks, or GPUs asked of a machine that has none.
        RunError: no Ray answers at the cluster's address.
    """
    if precision == "tf32" and not gpus_per_worker:
        raise ConfigError(
            "training.precision tf32 needs a GPU", hint="--gpus-per-worker 1, or --precision fp32 or bf16"
        )
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return
    if attaches(address):
        require_cluster(_chosen(address))
    elif gpus_per_worker:
        num_workers_for({"CPU": len(os.sched_getaffinity(0)), "GPU": _local_gpus()}, gpus_per_worker=gpus_per_worker)
    elif precision == "bf16":  # only then: torch takes a second to import
        import torch

        from b3dist.training.precision import require_supported

        require_supported(precision, torch.device("cpu"))


def _chosen(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def _local_gpus() -> float:
    """The GPUs that a cluster started by this process would have, as Ray counts them."""
    from ray._private.accelerators import get_accelerator_manager_for_resource

    manager = get_accelerator_manager_for_resource("GPU")
    visible = manager.get_current_process_visible_accelerator_ids()
    present = float(manager.get_current_node_num_accelerators())
    return present if visible is None else min(present, float(len(visible)))


def num_workers_for(resources: dict[str, float], *, gpus_per_worker: float) -> int:
    """As many workers as the cluster can hold: one per core, or one per share of a GPU.

    Raises:
        ConfigError: GPUs are asked for and the cluster has none.
    """
    cpus = int(resources.get("CPU", 0))
    if gpus_per_worker <= 0:
        return max(cpus, 1)
    gpus = resources.get("GPU", 0.0)
    possible = (
        int(gpus + 1e-9) * int(1 / gpus_per_worker + 1e-9) if gpus_per_worker < 1 else int(gpus / gpus_per_worker)
    )
    if possible < 1:
        raise ConfigError(
            f"{gpus_per_worker:g} GPUs per worker asked for, but the cluster has {gpus:g}",
            hint="--gpus-per-worker 0 trains on CPUs",
        )
    return max(min(possible, cpus), 1)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    """Take the signals back from Ray, whose own handler ends a driver that gets SIGTERM with abort()."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _bind_to_loopback() -> None:
    """Keep a private cluster off the network: Ray has no option for it.

    It binds to the loopback interface where it takes the machine for one that cannot form a cluster, which this process
    learns from a constant and the processes it starts from the environment.
    """
    from ray._private import ray_constants

    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def _protect_token() -> None:
    """Ray writes the token that lets a program run code on the cluster readable for everybody."""
    token = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(FileNotFoundError):
        token.chmod(0o600)


def _quieten(*, debug: bool) -> None:
    if not debug:
        for name in ("ray", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
