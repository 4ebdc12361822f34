"""Frames: a `u32` big-endian length, then one MessagePack value of `keycustody.token.api`.

Both ends refuse a frame longer than `MAX_FRAME_BYTES` before they read or write it. MessagePack and
never pickle: what comes out of a process that hosts a vendor's module is data, checked against its
type, and not code. This is the encoding and the worker's blocking end; `pipe` is the supervisor's.
"""

import socket
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from keycustody.errors import MessageTooLarge
from keycustody.token.api import MAX_FRAME_BYTES

Value = TypeVar("Value")

HEADER_BYTES = 4
#: Most requests come whole in one piece of this size.
_RECEIVE_BYTES = 64 * 1024
_ENCODER = msgspec.msgpack.Encoder()


def encode(value: msgspec.Struct) -> bytes:
    """Return a whole frame. Raises `MessageTooLarge`."""
    frame = bytearray(HEADER_BYTES)
    _ENCODER.encode_into(value, frame, HEADER_BYTES)
    length = len(frame) - HEADER_BYTES
    if length > MAX_FRAME_BYTES:
        raise MessageTooLarge(f"A request or its answer is over {MAX_FRAME_BYTES} bytes.")
    frame[:HEADER_BYTES] = length.to_bytes(HEADER_BYTES)
    return bytes(frame)


class FrameDecoder(Generic[Value]):
    """Frames of one type out of a stream of bytes that comes in any pieces."""

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._waiting = bytearray()

    def feed(self, data: bytes) -> Iterator[Value]:
        """Yield each frame that is now complete. Raises `ValueError` for what is no frame."""
        waiting = self._waiting
        waiting += data
        while len(waiting) >= HEADER_BYTES:
            end = HEADER_BYTES + _length(waiting)
            if len(waiting) < end:
                return
            try:
                value = self._decode(bytes(memoryview(waiting)[HEADER_BYTES:end]))
            except RecursionError as error:
                # What a type does not name is skipped, however deeply it is nested.
                raise ValueError("a frame is nested too deeply") from error
            del waiting[:end]
            yield value


class BlockingFrames(Generic[Value]):
    """The child's end of the pipe: reads frames of one type, writes any."""

    def __init__(self, connection: socket.socket, kind: Any) -> None:
        self._connection = connection
        self._decoder: FrameDecoder[Value] = FrameDecoder(kind)
        self._complete: Iterator[Value] = iter(())

    def read(self) -> Value | None:
        """Wait for the next frame; None at the end. Raises `ValueError` for what is no frame."""
        while (value := next(self._complete, None)) is None:
            data = self._connection.recv(_RECEIVE_BYTES)
            if not data:
                return None
            self._complete = self._decoder.feed(data)
        return value

    def write(self, value: msgspec.Struct) -> None:
        """Send one frame. Raises `MessageTooLarge`, `OSError`."""
        self._connection.sendall(encode(value))


def _length(header: bytearray) -> int:
    length = int.from_bytes(header[:HEADER_BYTES])
    if length > MAX_FRAME_BYTES:
        raise ValueError("a frame is over the limit")
    return length
