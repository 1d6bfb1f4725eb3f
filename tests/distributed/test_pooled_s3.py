"""Checkpoints on a real S3 server: killed, resumed, the same bits; what is wrong with a bucket is said.

Needs a server, whose address B3DIST_TEST_S3 gives; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must open it. One that
keeps everything in memory: `pip install "moto[server]"` (57 packages, hence no dependency), `moto_server -p 5055`,
then B3DIST_TEST_S3=http://127.0.0.1:5055 with any keys.
"""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from pyarrow.fs import FileSelector, S3FileSystem

from b3dist.distributed.pooled.checkpoint_copy import copy_checkpoints, epochs_kept
from b3dist.distributed.pooled.checkpoint_storage import check_storage
from b3dist.distributed.pooled.folder import MODEL_FOLDER
from b3dist.distributed.run_list import list_runs
from b3dist.errors import StorageError
from b3dist.run_folder import RunFolder
from tests.distributed.checkpoints import RUN, keep
from tests.distributed.pooled_drivers import OPTIONS, curves, start, unbroken, wait_for_epochs
from tests.distributed.runs import PATIENCE_S, wait_for


@dataclass(frozen=True)
class Bucket:
    """A new bucket, seen without what is tested."""

    name: str
    filesystem: S3FileSystem

    def files(self, folder: str) -> list[Path]:
        """What lies below a folder of it."""
        below = FileSelector(f"{self.name}/{folder}", recursive=True, allow_not_found=True)
        return [Path(info.path) for info in self.filesystem.get_file_info(below) if info.is_file]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """On the server that B3DIST_TEST_S3 names; what is started from here finds it by the environment."""
    endpoint = os.environ.get("B3DIST_TEST_S3")
    if not endpoint:
        pytest.skip("no S3 server: B3DIST_TEST_S3 gives no address")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"b3dist-{uuid4().hex}"
    # By argument: the library in this process has read the environment already.
    filesystem = S3FileSystem(endpoint_override=endpoint, region="us-east-1", allow_bucket_creation=True)
    filesystem.create_dir(name)
    return Bucket(name, filesystem)


def test_a_bucket_is_tried_and_left_empty(bucket: Bucket) -> None:
    """One that is not there is said so."""
    check_storage(f"s3://{bucket.name}/folder")
    assert bucket.files("folder") == []
    with pytest.raises(StorageError, match="there is no such bucket"):
        check_storage(f"s3://{bucket.name}-2/folder")


def test_checkpoints_go_to_a_bucket_and_to_another_and_back(bucket: Bucket, tmp_path: Path) -> None:
    """Every byte that the snapshot names; a bucket that is gone holds none."""
    first, second = (f"s3://{bucket.name}/{folder}" for folder in ("one", "deeper/two/"))
    keep(tmp_path / "old", epochs=7)
    for old, new in ((str(tmp_path / "old"), first), (first, second), (second, str(tmp_path / "new"))):
        assert epochs_kept(new, RUN) == 0
        assert copy_checkpoints(old, new, RUN) is None
        assert epochs_kept(new, RUN) == 7
    found = {path.relative_to(tmp_path / "new"): path for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert len(found) == 5
    assert all(path.read_bytes() == (tmp_path / "old" / name).read_bytes() for name, path in found.items())
    assert copy_checkpoints(f"s3://{bucket.name}-2/one", str(tmp_path / "third"), RUN) is None
    assert epochs_kept(str(tmp_path / "third"), RUN) == 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_driver_goes_on_from_a_checkpoint_in_a_bucket(small_lake: Path, tmp_path: Path, bucket: Bucket) -> None:
    """Curve and weights are those of an unbroken training without Ray; no key is written anywhere."""
    runs, storage = tmp_path / "runs", f"s3://{bucket.name}/checkpoints"
    first = start(runs, "--lake", str(small_lake), "--storage", storage, "--mlflow", *OPTIONS)
    (info,) = wait_for(lambda: list_runs(runs) or None)
    run = RunFolder.open(runs, info.run_id)
    wait_for_epochs(run, first, 4)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=PATIENCE_S)
    before = len(json.loads((run.path / "progress.json").read_text())["epochs"])
    kept = [file for file in bucket.files(f"checkpoints/{run.run_id}") if file.name == "state.pt"]
    assert kept, "checkpoints lie in the bucket"
    assert not (run.path / "ray").exists(), "and nowhere else"

    second = start(runs, "--resume", run.run_id, "--mlflow")
    stdout, stderr = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, stderr
    assert json.loads(stdout)["epochs"] == 60
    assert 4 <= before < 60
    fitting = unbroken(small_lake)
    found, expected = curves(run, fitting)
    assert found == expected
    epochs = json.loads((run.path / "progress.json").read_text())["epochs"]
    assert len({epoch["pid"] for epoch in epochs}) == 2
    stored = torch.load(run.path / MODEL_FOLDER / "model.pt", weights_only=True)
    for name, weight in fitting.best_model().state_dict().items():
        assert torch.equal(stored[name], weight), name
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in written)
    assert [path for path in written if secret in path.read_bytes()] == []
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in stdout + stderr
