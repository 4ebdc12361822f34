"""Reading, encryption and writing at the same time, in constant memory.

Three stages and two small pools of reused buffers: the calling thread reads, one thread encrypts or
decrypts, one writes; each releases the GIL while it works. What goes wrong in any stage ends all
three and is raised in the calling thread, KeyboardInterrupt included.

It neither opens nor removes files; `keycustody.client.files` does.
"""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Final, Protocol, TypeAlias

from keycustody.client.envelopes import Body
from keycustody.client.files import Progress

BLOCK_BYTES: Final = 1024 * 1024
#: Buffers on each side: one being filled, one being emptied, one in between.
DEPTH: Final = 3
#: What a body may add to one block: a salt, a commitment, a chunk held back, a tag a chunk.
_GROWTH_BYTES: Final = 56 + 16 * 1024 + 16 * (BLOCK_BYTES // (16 * 1024) + 1)
#: How long a failed transfer waits for a stage that is stuck in a pipe's read or write.
_PATIENCE_SECONDS: Final = 5.0


class Reads(Protocol):
    """Fills some of a buffer; 0 at the end."""

    def readinto(self, buffer: memoryview, /) -> int: ...


class Writes(Protocol):
    """Writes all of its argument."""

    def write(self, data: memoryview | bytes, /) -> None: ...


#: A filled buffer, how much of it is filled, and how much of the source that accounts for.
_Block: TypeAlias = tuple[memoryview, int, int]
_Blocks: TypeAlias = "SimpleQueue[_Block | None]"
_Buffers: TypeAlias = "SimpleQueue[memoryview | None]"


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
    """The three stages of one transfer. A None in a queue ends the stage that takes it."""

    def __init__(self, body: Body, sink: Writes, done: int) -> None:
        self._body = body
        self._sink = sink
        self._read = self._written = done
        self._failure: BaseException | None = None
        self._in_free: _Buffers = SimpleQueue()
        self._in_full: _Blocks = SimpleQueue()
        self._out_free: _Buffers = SimpleQueue()
        self._out_full: _Blocks = SimpleQueue()
        for _ in range(DEPTH):
            self._in_free.put(memoryview(bytearray(BLOCK_BYTES)))
            self._out_free.put(memoryview(bytearray(BLOCK_BYTES + _GROWTH_BYTES)))

    def run(self, source: Reads, total: int | None, progress: Progress | None) -> int:
        stages = [
            Thread(target=self._guarded, args=(stage,), daemon=True, name=f"keycustody-{name}")
            for name, stage in (("body", self._transform_all), ("write", self._write_all))
        ]
        try:
            for stage in stages:
                stage.start()
            self._read_all(source, total, progress)
            for stage in stages:
                stage.join()
        except BaseException as error:
            self._end(error)
            for stage in stages:
                if stage.ident is not None:
                    stage.join(_PATIENCE_SECONDS)
            raise
        if self._failure is not None:
            raise self._failure
        if progress is not None:
            progress(self._written, total)
        return self._written

    def _read_all(self, source: Reads, total: int | None, progress: Progress | None) -> None:
        shown = -1
        while (buffer := self._in_free.get()) is not None:
            count = source.readinto(buffer)
            self._read += count
            self._in_full.put((buffer, count, self._read) if count else None)
            if not count:
                return
            if progress is not None and shown != self._written:
                shown = self._written
                progress(shown, total)

    def _transform_all(self) -> None:
        while (block := self._in_full.get()) is not None:
            data, size, position = block
            out = self._out_free.get()
            if out is None:
                return
            made = self._body.update_into(data[:size], out)
            self._in_free.put(data)
            self._out_full.put((out, made, position))
        if self._failure is None:
            last = memoryview(self._body.finalize())
            self._out_full.put((last, len(last), self._read))
            self._out_full.put(None)

    def _write_all(self) -> None:
        while (block := self._out_full.get()) is not None:
            if self._failure is not None:
                return
            data, size, position = block
            self._sink.write(data[:size])
            self._written = position
            self._out_free.put(data)

    def _guarded(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self._end(error)

    def _end(self, error: BaseException) -> None:
        """Remember what went wrong first, and let no stage wait any longer."""
        if self._failure is None:
            self._failure = error
        self._in_free.put(None)
        self._in_full.put(None)
        self._out_free.put(None)
        self._out_full.put(None)
