"""cluster.yaml against Ray's own schema."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """The cluster's configuration."""
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema that `ray up` validates by."""
    return json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))


def test_cluster_yaml_satisfies_rays_schema(cluster: dict[str, Any], schema: dict[str, Any]) -> None:
    """The file is valid, and the schema is not one that takes anything."""
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "max_workers": "four"}, schema)


def test_head_has_no_gpu_and_workers_scale_from_zero(cluster: dict[str, Any]) -> None:
    """A CPU head and GPU workers that cost nothing while nobody trains."""
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert "GPU" not in head["resources"]
    assert all(kind["resources"]["GPU"] >= 1 and kind["min_workers"] == 0 for kind in types.values())
    assert sum(kind["max_workers"] for kind in types.values()) <= cluster["max_workers"]
    types[cluster["head_node_type"]] = head


def test_every_ray_start_demands_the_token_and_the_dashboard_stays_local(cluster: dict[str, Any]) -> None:
    """No node starts open, and the dashboard listens on the loopback interface only."""
    starts = [
        command
        for name in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in cluster[name]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all(command.startswith("RAY_AUTH_MODE=token ray start") for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in cluster["file_mounts"]
