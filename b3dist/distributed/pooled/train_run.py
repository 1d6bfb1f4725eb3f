"""The Ray Train run of a pooled model; apart from the fleet's, whose driver must not pay for importing torch."""

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from b3dist.distributed.lean_trainer import LeanTrainer
from b3dist.distributed.pooled.worker import PooledSettings, train_pooled

_COLLECTIVE_TIMEOUT_S = 300
"""How long a worker waits for the others before it gives up, and the group is started again."""


def make_pooled_trainer(
    settings: PooledSettings,
    *,
    name: str,
    storage: str,
    num_workers: int,
    gpus_per_worker: float,
    max_failures: int,
    private_cluster: bool,
) -> "PooledTrainer":
    """A trainer whose `fit` trains one model over all assets, or goes on from the last checkpoint of that name.

    Args:
        settings: what the workers need.
        name: of the Train run; a name used before in this storage is meant to resume.
        storage: folder or URI (s3://...) of the checkpoints.
        num_workers: processes that share each step.
        gpus_per_worker: GPUs of each, joined by nccl; 0 for CPUs, joined by gloo.
        max_failures: times the group is started again.
        private_cluster: the cluster ends with this process and has no autoscaler.
    """
    use_gpu = gpus_per_worker > 0
    return PooledTrainer(
        train_pooled,
        train_loop_config={"settings": settings},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=_COLLECTIVE_TIMEOUT_S),
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": 1.0, "GPU": gpus_per_worker} if use_gpu else {"CPU": 1.0},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
        private_cluster=private_cluster,
    )


class PooledTrainer(LeanTrainer, TorchTrainer):  # type: ignore[misc]
    """Ray Train's trainer for workers that train one model together, in one process group of torch.distributed."""
