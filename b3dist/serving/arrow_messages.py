"""What an Arrow stream's messages claim about themselves, checked before pyarrow acts on it.

A compressed buffer says how large it becomes and pyarrow allocates that much: a kilobyte could ask for a terabyte. So
compressed bodies are refused, for which the message's header must be read; pyarrow does not show it.

Source: Arrow columnar format, Message.fbs: Message {version, header_type, header, bodyLength}, DictionaryBatch
{id, data: RecordBatch, isDelta}, RecordBatch {length, nodes, buffers, compression}; FlatBuffers' table layout.
"""

import struct

import pyarrow as pa

MAX_MESSAGES = 10_000
"""Messages in one stream; one per ticker, and some."""

_HEADER, _DATA, _COMPRESSION = 2, 1, 3
"""Positions of Message.header, DictionaryBatch.data and RecordBatch.compression among their tables' fields."""


def refuse_unsound_messages(body: bytes) -> None:
    """Refuse a stream with too many messages or a compressed one.

    Raises:
        ValueError: and says why.
        pa.ArrowException, OSError: it is no stream at all.
    """
    for number, message in enumerate(pa.ipc.MessageReader.open_stream(body)):
        if number >= MAX_MESSAGES:
            raise ValueError(f"it has more than {MAX_MESSAGES} messages")
        if message.type in ("record batch", "dictionary") and _is_compressed(message):
            raise ValueError("its buffers are compressed; send it uncompressed")


def _is_compressed(message: pa.Message) -> bool:
    content = message.metadata.to_pybytes()
    try:
        batch = _follow(content, _pointer(content, 0), _HEADER)
        if message.type == "dictionary":
            batch = _follow(content, batch, _DATA)
        return _field(content, batch, _COMPRESSION) is not None
    except struct.error as error:
        raise ValueError(f"a message's header is damaged: {error}") from error


def _pointer(content: bytes, position: int) -> int:
    """Where the offset stored at `position` leads."""
    (offset,) = struct.unpack_from("<I", content, position)
    return position + int(offset)


def _field(content: bytes, table: int, index: int) -> int | None:
    """Where a table's field lies; None if it is absent."""
    (to_vtable,) = struct.unpack_from("<i", content, table)
    vtable = table - to_vtable
    (size,) = struct.unpack_from("<H", content, vtable)
    slot = 4 + 2 * index
    if slot + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", content, vtable + slot)
    return table + offset if offset else None


def _follow(content: bytes, table: int, index: int) -> int:
    """The table that a field points to."""
    position = _field(content, table, index)
    if position is None:
        raise struct.error("a field is missing")
    return _pointer(content, position)
