"""Encryption and writing at the same time, in constant memory.

Two stages and a small pool of reused buffers: the calling thread reads and encrypts or decrypts,
and another one writes, which takes about as long as both; each releases the GIL while it works.
What goes wrong in either ends both and is raised in the calling thread, KeyboardInterrupt included.

It neither opens nor removes files; `keycustody.client.files` does.
"""

from queue import SimpleQueue
from threading import Thread
from typing import Final, Protocol, TypeAlias

from keycustody.client.envelopes import Body
from keycustody.client.files import Progress

#: Small enough that a block is still in the processor's cache when it is written.
BLOCK_BYTES: Final = 256 * 1024
#: Buffers at most: one being filled, one being emptied, and some that even out the two paces.
DEPTH: Final = 4
#: What a body may add to one block: a salt, a commitment, a chunk held back, a tag a chunk.
_GROWTH_BYTES: Final = 56 + 16 * 1024 + 16 * (BLOCK_BYTES // (16 * 1024) + 1)
#: How long a failed transfer waits for a write that is stuck in a pipe.
_PATIENCE_SECONDS: Final = 5.0


class Reads(Protocol):
    """Fills some of a buffer; 0 at the end."""

    def readinto(self, buffer: memoryview, /) -> int: ...


class Writes(Protocol):
    """Writes all of its argument."""

    def write(self, data: memoryview | bytes, /) -> None: ...


#: A filled buffer, how much of it is filled, and how much of the source that accounts for.
_Block: TypeAlias = tuple[memoryview, int, int]


def transfer(
    source: Reads,
    body: Body,
    sink: Writes,
    *,
    done: int = 0,
    total: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Pass all of `source` through `body` into `sink`; return the bytes of the source done.

    `done` are those that were before. `progress` is called in this thread, for a block whose
    output was written, and once more at the end.
    """
    return _Transfer(body, sink, done).run(source, total, progress)


class _Transfer:
    """The two stages of one transfer. A None in a queue ends the stage that takes it."""

    def __init__(self, body: Body, sink: Writes, done: int) -> None:
        self._body = body
        self._sink = sink
        self._read = self._written = done
        self._failure: BaseException | None = None
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        self._full: SimpleQueue[_Block | None] = SimpleQueue()
        self._made = 0

    def run(self, source: Reads, total: int | None, progress: Progress | None) -> int:
        writer = Thread(target=self._write_all, daemon=True, name="keycustody-write")
        try:
            writer.start()
            self._read_all(source, total, progress)
            writer.join()
        except BaseException as error:
            self._failure = self._failure or error
            self._full.put(None)
            if writer.ident is not None:
                writer.join(_PATIENCE_SECONDS)
            raise
        if self._failure is not None:
            raise self._failure
        if progress is not None:
            progress(self._written, total)
        return self._written

    def _read_all(self, source: Reads, total: int | None, progress: Progress | None) -> None:
        buffer, shown = memoryview(bytearray(BLOCK_BYTES)), -1
        while (out := self._buffer()) is not None:
            count = source.readinto(buffer)
            if not count:
                last = memoryview(self._body.finalize())
                self._full.put((last, len(last), self._read))
                self._full.put(None)
                return
            self._read += count
            self._full.put((out, self._body.update_into(buffer[:count], out), self._read))
            if progress is not None and shown != self._written:
                shown = self._written
                progress(shown, total)

    def _buffer(self) -> memoryview | None:
        """A buffer that is free; a new one while there may be more. Touching memory for the first
        time costs as much as encrypting it."""
        if self._free.empty() and self._made < DEPTH:
            self._made += 1
            return memoryview(bytearray(BLOCK_BYTES + _GROWTH_BYTES))
        return self._free.get()

    def _write_all(self) -> None:
        try:
            while (block := self._full.get()) is not None and self._failure is None:
                data, size, position = block
                self._sink.write(data[:size])
                self._written = position
                self._free.put(data)
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self._failure = error
            self._free.put(None)
