"""A sweep in MLflow, without Ray."""

from pathlib import Path

from b3dist.distributed.fleet.options import FleetOptions
from b3dist.distributed.sweep.plan import extend_sweep
from b3dist.distributed.sweep.tracking import SweepTracking
from tests.distributed.sweeps import searched


def test_a_longer_sweep_goes_on_in_the_same_parent_run(small_lake: Path, tmp_path: Path) -> None:
    """MLflow never lets a parameter change; how many trials are planned does."""
    from mlflow.tracking import MlflowClient

    sweep = searched(small_lake, tmp_path / "runs")
    for known, state in ((sweep, "finished"), (extend_sweep(sweep, 12), "interrupted")):
        tracking = SweepTracking(known, FleetOptions(tracking=True))
        tracking.open()
        tracking.finish({"totals": {"trials": 9}}, state)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("b3dist")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id])
    assert parent.info.status == "KILLED"
    assert parent.data.metrics
