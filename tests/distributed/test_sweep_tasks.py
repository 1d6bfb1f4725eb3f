"""What a sweep runs as Ray tasks leaves a GPU as it found it."""

import os
from collections.abc import Iterator

import pytest
import ray

from b3dist.distributed.cluster import connected
from b3dist.distributed.sweep.tasks import as_task


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster that says it has a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", lambda init=ray.init, **options: init(**options, num_gpus=1))
        with connected("local", num_cpus=1):
            yield


def _who() -> tuple[int, str | None]:
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.ray
@pytest.mark.parametrize("gpus", [0.5, 1])
def test_a_process_that_had_a_gpu_ends_with_its_task(cluster: None, gpus: float) -> None:
    """Each task is a process of its own on the GPU it was given: memory is free for the next, on whichever GPU."""
    task = as_task(_who, gpus=gpus)
    told = [ray.get(task.remote()) for _ in range(3)]
    assert len({pid for pid, _ in told}) == 3
    assert {visible for _, visible in told} == {"0"}
