"""Whether checkpoints can be kept where a run is told to: asked once, before the run is made and Ray is started.

Ray Train would say it too, but after its workers have started, from a run's folder that is of no use, and not at all
while a server stays silent: Arrow repeats a request to one for 100 s.
"""

import multiprocessing
import re
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

from b3dist.errors import ConfigError, StorageError

TIMEOUT_S = 20.0
"""A server that has not taken one small file by then is not there."""
GOES_ON: Final = {"goes_on": True}
"""What a function of `ask_apart` says of itself while it makes progress."""

_ADDRESS_HINT = "--storage takes a folder, or an address such as s3://bucket/folder"
_HOST_HINT = "set AWS_ENDPOINT_URL, or end the address with ?endpoint_override=HOST:PORT&scheme=http"
_KEYS_HINT = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; they must be allowed to write and delete"
_SECRETIVE = re.compile("secret|token|password|key", re.IGNORECASE)


class _Cause(NamedTuple):
    """What Arrow's words mean."""

    pattern: str
    sentence: str
    hint: str


_CAUSES = (
    _Cause("NO_SUCH_BUCKET|Bucket '.*' not found", "there is no such bucket", "make the bucket first"),
    _Cause(
        "INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|ACCESS_DENIED|AUTHENTICATION|EXPIRED_TOKEN|status 403",
        "the server refuses these credentials",
        _KEYS_HINT,
    ),
    _Cause("NETWORK_CONNECTION|Could(n't| not) (connect|resolve)", "no server answers there", _HOST_HINT),
)


def check_storage(storage: str, *, timeout_s: float = TIMEOUT_S) -> None:
    """Write a small file into a folder or under an address, and delete it again.

    Args:
        storage: absolute path, or URI such as s3://bucket/folder.
        timeout_s: how long that may take.

    Raises:
        ConfigError: no address of a known kind, or one that holds credentials.
        StorageError: nothing can be written there; says why.
    """
    _refuse_credentials(storage)
    if storage.endswith("://"):
        raise ConfigError(f"the address {storage} names no bucket", hint=_ADDRESS_HINT)
    require_written(storage, ask_apart(_probe, storage, timeout_s=timeout_s), timeout_s)


def known_cause(storage: str, words: str) -> StorageError | None:
    """What Arrow's words about a storage mean; None if they are of something else."""
    for cause in _CAUSES:
        if re.search(cause.pattern, words):
            return StorageError(f"cannot write checkpoints to {storage}: {cause.sentence}", hint=cause.hint)
    return None


def ask_apart(act: Callable[..., None], *arguments: str, timeout_s: float) -> dict[str, Any]:
    """What a function answers from a process of its own, within so many seconds each time it says that it goes on.

    A request that hangs cannot be ended otherwise, not even by the interpreter's exit.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    other = context.Process(target=act, args=(*arguments, theirs), daemon=True)
    other.start()
    theirs.close()
    try:
        while ours.poll(timeout_s):
            answer: dict[str, Any] = ours.recv()
            if answer != GOES_ON:
                return answer
        return {"silent": ""}
    except EOFError:
        return {"failed": "the process that tried it died"}
    finally:
        other.kill()
        other.join()
        ours.close()


def require_written(storage: str, answer: Mapping[str, str], timeout_s: float) -> None:
    """Refuse a storage that the other process could not write.

    Raises:
        ConfigError: it is no address.
        StorageError: anything else.
    """
    if "invalid" in answer:
        raise ConfigError(
            f"cannot keep checkpoints at {storage}: {_first_line(answer['invalid'])}",
            hint=_ADDRESS_HINT,
        )
    where = f"cannot write checkpoints to {storage}"
    if "silent" in answer:
        raise StorageError(f"{where}: no answer within {timeout_s:g} s", hint=_HOST_HINT)
    if "failed" in answer:
        raise known_cause(storage, answer["failed"]) or StorageError(
            f"{where}: {_first_line(answer['failed'])}", hint="choose another place with --storage"
        )


def why_unread(storage: str, answer: Mapping[str, Any], timeout_s: float) -> str | None:
    """Why a storage could not be read, in a few words; None if it could."""
    if "silent" in answer:
        return f"no answer within {timeout_s:g} s"
    if "failed" not in answer:
        return None
    known = known_cause(storage, answer["failed"])
    return known.message.rpartition(": ")[2] if known is not None else _first_line(answer["failed"])


def _refuse_credentials(storage: str) -> None:
    """Keep keys out of config.json, MLflow and the process list; the message must not show them either."""
    if "://" not in storage:
        return
    parts = urlsplit(storage)
    # A bucket's name holds neither; a secret with a slash in it is no password to urlsplit.
    in_bucket = parts.scheme in ("s3", "gs", "gcs") and not {":", "@"}.isdisjoint(parts.netloc)
    in_authority = ":" in parts.netloc.rpartition("@")[0]
    in_query = any(_SECRETIVE.search(name) or "@" in value for name, value in parse_qsl(parts.query))
    if in_bucket or in_authority or in_query:
        raise ConfigError(
            "the address given with --storage holds credentials, which would be kept in the run's folder",
            hint=_KEYS_HINT,
        )


def _probe(storage: str, answer: Connection) -> None:
    """What the other process does: what Ray Train will do, with one byte."""
    import pyarrow
    from pyarrow.fs import FileSystem

    try:
        filesystem, path = FileSystem.from_uri(storage)
        if filesystem.type_name != "s3":  # has no folders, and would try to reach the server twice as long
            filesystem.create_dir(path, recursive=True)
        file = f"{path}/.b3dist-{uuid4().hex}"
        with filesystem.open_output_stream(file) as stream:
            stream.write(b"1")
        filesystem.delete_file(file)
    except pyarrow.ArrowInvalid as error:
        answer.send({"invalid": str(error)})
    except (OSError, pyarrow.ArrowException) as error:
        answer.send({"failed": str(error)})
    else:
        answer.send({})


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip(".")
