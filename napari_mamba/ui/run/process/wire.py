"""Messages between the window and its engine process, over a pair of pipes that nobody else holds.

Pickle, with arrays out of band (PEP 574): their bytes go through the pipe as they lie in memory, which neither holds
Python's lock nor copies them twice.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, BinaryIO

_HEAD = struct.Struct("<QQ")


def send(stream: BinaryIO, message: Any) -> None:
    """Write one message; raises `OSError` where the other side is gone."""
    buffers: list[memoryview] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=lambda buffer: buffers.append(buffer.raw()))
    stream.write(_HEAD.pack(len(head), len(buffers)))
    stream.write(struct.pack(f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers)))
    stream.write(head)
    for buffer in buffers:
        stream.write(buffer)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message; raises `EOFError` where the other side is gone. Arrays in it can be written to."""
    length, count = _HEAD.unpack(_read(stream, _HEAD.size))
    sizes = struct.unpack(f"<{count}Q", _read(stream, 8 * count))
    head = _read(stream, length)
    return pickle.loads(head, buffers=[_read(stream, size) for size in sizes])


def _read(stream: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the other side of the pipe is closed")
        done += count
    return data
