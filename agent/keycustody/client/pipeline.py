"""Encryption and writing at the same time, in constant memory.

Two stages and a small pool of reused buffers: the calling thread reads and encrypts or decrypts,
and another one writes, which takes about as long as both; each releases the GIL while it works.
What goes wrong in either ends both and is raised in the calling thread, KeyboardInterrupt included.

A regular file is written in whole blocks at multiples of their size, which cost a quarter less; a
pipe gets whatever there is, at once.

It neither opens nor removes files; `keycustody.client.files` does.
"""

import mmap
from queue import SimpleQueue
from threading import Thread
from typing import Final, Protocol, TypeAlias

from keycustody.client.envelopes import Body
from keycustody.client.files import Progress

#: Large: the larger a file's writes, the less each byte costs, and a thread that waits for a block
#: has to be woken for each of them.
BLOCK_BYTES: Final = 1024 * 1024
#: Buffers at most: one being filled, one being emptied, and one that evens out the two paces.
DEPTH: Final = 3
_CHUNK_BYTES: Final = 16 * 1024
#: Read beyond a block's end, since a body may hold a chunk back.
_INPUT_BYTES: Final = BLOCK_BYTES + _CHUNK_BYTES
#: What a body may add to that: a salt, a commitment, a chunk held back, a tag a chunk.
_OUTPUT_BYTES: Final = _INPUT_BYTES + 56 + _CHUNK_BYTES + 16 * (_INPUT_BYTES // _CHUNK_BYTES + 1)
#: How long a failed transfer waits for a write that is stuck in a pipe.
_PATIENCE_SECONDS: Final = 5.0


class Reads(Protocol):
    """Fills some of a buffer; 0 at the end."""

    def readinto(self, buffer: memoryview, /) -> int: ...


class Writes(Protocol):
    """Writes all of its argument."""

    @property
    def written(self) -> int:
        """How many bytes there are by now."""
        ...

    @property
    def regular(self) -> bool:
        """Whether it is a regular file."""
        ...

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
        self._input = _memory(_INPUT_BYTES)
        #: Made, and beyond the end of the block before.
        self._rest = b""
        #: Where that begins in the sink.
        self._position = sink.written

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
        shown = -1
        while (out := self._buffer()) is not None:
            goes_on, size = self._fill(source, out)
            self._full.put((out, size, self._read))
            if not goes_on:
                self._full.put(None)
                return
            if progress is not None and shown != self._written:
                shown = self._written
                progress(shown, total)

    def _fill(self, source: Reads, out: memoryview) -> tuple[bool, int]:
        """Fill a buffer: whether there is more to come, and how much of it is to be written."""
        # A file's block ends where it should; for a pipe, any byte will do.
        step = BLOCK_BYTES if self._sink.regular else 1
        room = BLOCK_BYTES - self._position % step
        filled = len(self._rest)
        out[:filled] = self._rest
        while filled < min(room, step):
            count = source.readinto(self._input[: room - filled + _CHUNK_BYTES])
            if not count:
                last = self._body.finalize()
                out[filled : filled + len(last)] = last
                return False, filled + len(last)
            self._read += count
            filled += self._body.update_into(self._input[:count], out[filled:])
        size = filled - (self._position + filled) % step
        self._rest = bytes(out[size:filled])
        self._position += size
        return True, size

    def _buffer(self) -> memoryview | None:
        """A buffer that is free; a new one while there may be more. Touching memory for the first
        time costs as much as encrypting it."""
        if self._free.empty() and self._made < DEPTH:
            self._made += 1
            return _memory(_OUTPUT_BYTES)
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


def _memory(size: int) -> memoryview:
    """Memory that begins with a page: a write from elsewhere takes a fifth longer. Not shared with
    a process that is forked meanwhile."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
