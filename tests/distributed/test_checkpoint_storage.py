"""Where checkpoints cannot be kept is said in one sentence, soon, and before anything is made."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from b3dist.distributed.pooled.checkpoint_storage import check_storage, known_cause
from b3dist.errors import ConfigError, StorageError


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of nobody, so that no address of the network is asked for some."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    """Also one with a space in its name."""
    check_storage(str(tmp_path / "many checkpoints" / "of mine"))
    assert list((tmp_path / "many checkpoints" / "of mine").iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    """Instead of a run whose workers give up one after another."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write checkpoints to .*file/below: .*Not a directory"):
        check_storage(str(tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    "storage",
    [
        "s3://KEY:hidden@bucket/folder",
        "s3://KEY:hid/den@bucket/folder",
        "s3://bucket/folder?secret_key=hidden",
        "s3://bucket/folder?endpoint_override=http://me:hidden@127.0.0.1:9",
        "abfs://:hidden@account.blob.core.windows.net/folder",
    ],
)
def test_credentials_in_the_address_are_refused_and_not_repeated(storage: str) -> None:
    """The address is kept in config.json, and shown in errors."""
    with pytest.raises(ConfigError, match="holds credentials") as refused:
        check_storage(storage)
    assert "hid" not in refused.value.message.replace("which", "")
    assert "AWS_SECRET_ACCESS_KEY" in refused.value.hint


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("s3://", "names no bucket"),
        ("s3://bucket/folder?bogus=1", "bogus"),
        ("http://bucket/folder", "Unrecognized filesystem type"),
    ],
)
def test_what_is_no_address_is_refused(storage: str, said: str) -> None:
    """With an example of one."""
    with pytest.raises(ConfigError, match=said) as refused:
        check_storage(storage)
    assert "s3://bucket/folder" in refused.value.hint


def test_a_server_that_is_not_there_is_not_waited_for(silent: str) -> None:
    """Neither a closed port (Arrow tries for 7 s) nor a silent one, which Arrow tries for 100 s."""
    with socket.socket() as deaf:  # holds the port and does not listen
        deaf.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(StorageError, match="no server answers there") as failed:
            check_storage(f"s3://bucket/folder?endpoint_override={closed}&scheme=http&region=us-east-1", timeout_s=90)
    assert "AWS_ENDPOINT_URL" in failed.value.hint
    with pytest.raises(StorageError, match="no answer within 1 s"):
        check_storage(f"s3://bucket/folder?endpoint_override={silent}&scheme=http&region=us-east-1", timeout_s=1)


def test_words_of_a_run_that_lost_its_storage_are_understood() -> None:
    """As Ray Train hands on what Arrow says (seen with a server killed during a run); other errors are left alone."""
    lost = known_cause(
        "s3://lab/ck",
        "When initiating multiple part upload for key 'ck/R/snapshot.json' in bucket 'lab': AWS Error "
        "NETWORK_CONNECTION during CreateMultipartUpload operation: curlCode: 7, Could not connect to server; Details: "
        "Failed to connect to 127.0.0.1 port 5057 after 0 ms: Could not connect to server",
    )
    assert lost is not None
    assert lost.message == "cannot write checkpoints to s3://lab/ck: no server answers there"
    assert known_cause("s3://lab/ck", "TrainingError: SIMA3 diverged at epoch 1") is None
