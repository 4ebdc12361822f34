"""The journal's writer: records in, and durable when their future is done.

One thread writes, and records that arrive together share one fsync (group commit). Only a caller
who is alone is spared the way to that thread and back, as long as the disk is quick
(docs/adr/0015). If a record cannot be written, the file is cut back to its last durable line, the
request is refused with `AuditUnavailable`, and the next record tries again: service resumes by
itself when there is room. A file that is large enough is followed by a new one.

A record's time is when it is written, so that times are in the order of the sequence.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from keycustody.custody.audit.active_file import ActiveFile
from keycustody.custody.clock import Clock, stamp
from keycustody.errors import AuditUnavailable
from keycustody.formats import audit as fmt
from keycustody.formats.audit import AuditRecord, Head

#: A file that is this large is followed by a new one, if the settings do not say otherwise.
ROTATE_BYTES = 256 * 2**20

#: Records that one fsync may cover; bounds how long a stop or a failure can take.
_BATCH = 1024

#: A write that took longer blocked the loop for too long: the next ones are the thread's.
_QUICK_SECONDS = 0.02
_CAUTIOUS_RECORDS = 1000

_log = structlog.get_logger(__name__)


#: With so many records waiting, a write is put off for this long, a fraction of what a request
#: takes then: fewer fsyncs for as many records.
_SIBLINGS, _DELAY_SECONDS = 4, 0.0005


class _Entry(NamedTuple):
    record: AuditRecord
    done: "asyncio.Future[None]"


class _Stop(NamedTuple):
    """Tells the thread to end after what came before."""


class Journal:
    """The open journal. Use as an async context manager, in the loop that will append."""

    def __init__(self, folder: Path, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.folder = folder
        #: The last durable record.
        self.head = Head(0, fmt.GENESIS)
        #: What records are stamped by, and decisions made by: never before the last record.
        self.clock = Clock()
        #: How many files were begun since it was opened.
        self.rotations = 0
        #: Called in the loop after records became durable.
        self.on_written: Callable[[], None] = lambda: None
        #: Called in the loop after each write: how many seconds it took, and whether it failed.
        self.on_tried: Callable[[float, bool], None] = lambda seconds, failed: None
        self._rotate_bytes = rotate_bytes
        self._entries: queue.SimpleQueue[_Entry | _Stop] = queue.SimpleQueue()
        #: Records that were appended and are not resolved: with none, the thread is idle.
        self._waiting = 0
        #: Records for which the loop will not write by itself.
        self._cautious = 0

    @property
    def path(self) -> Path:
        """The file that is written now."""
        return self._file.path

    async def __aenter__(self) -> "Journal":
        try:
            self._file = ActiveFile(self.folder)
        except OSError as error:
            raise AuditUnavailable(
                f"The audit journal in {self.folder} cannot be opened: {error.strerror}."
            ) from error
        self.head, self.clock = self._file.head, self._file.clock
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._entries.put(_Stop())
        await asyncio.to_thread(self._thread.join)
        self._file.close()

    def append(self, record: AuditRecord, *, alone: bool = False) -> "asyncio.Future[None]":
        """Begin to write one record, whose `time`, `seq` and `prev` are set here; durable when the
        future is done. `alone` says that nobody is held up if the loop does it.

        The future fails with `AuditUnavailable` if the record was not written. If it is cancelled,
        the record is written all the same.
        """
        entry = _Entry(record, self._loop.create_future())
        self._waiting += 1
        self._cautious = max(0, self._cautious - 1)
        if alone and self._waiting == 1 and not self._cautious:
            # Not at once: first, the caller sends the token its work.
            self._loop.call_soon(self._write_here, entry)
        else:
            self._entries.put(entry)
        return entry.done

    def _write_here(self, entry: _Entry) -> None:
        if self._waiting > 1:  # others came, and the thread may be writing
            self._entries.put(entry)
            return
        started = time.perf_counter()
        failure = self._write([entry.record])
        seconds = time.perf_counter() - started
        if seconds > _QUICK_SECONDS:
            self._cautious = _CAUTIOUS_RECORDS
        self._resolve([entry], failure, seconds)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            batch: list[_Entry] = []
            entry = self._entries.get()
            if self._waiting >= _SIBLINGS:
                time.sleep(_DELAY_SECONDS)  # others are coming: one fsync for more of them
            while True:
                if isinstance(entry, _Stop):
                    stopping = True
                    break
                batch.append(entry)
                if len(batch) == _BATCH or self._entries.empty():
                    break
                entry = self._entries.get()
            if batch:
                started = time.perf_counter()
                failure = self._write([entry.record for entry in batch])
                seconds = time.perf_counter() - started
                self._loop.call_soon_threadsafe(self._resolve, batch, failure, seconds)

    def _write(self, records: list[AuditRecord]) -> AuditUnavailable | None:
        """Write records durably; returns why not. Nothing else leaves: the thread must live on."""
        try:
            data, head = self._chained(records)
            if self._file.size >= self._rotate_bytes:
                self._file.begin_next(self.head.sequence + 1)
                self.rotations += 1
            self._file.append(data)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "a record cannot be encoded"
            with contextlib.suppress(OSError):  # the log may be on the same full disk
                _log.error("audit.unavailable", path=str(self.path), reason=reason)
            self._file.cut_back()
            return AuditUnavailable(
                f"The audit record cannot be written ({reason}), so nothing is answered; "
                "the agent resumes when its audit journal can be written again."
            )
        self.head = head
        return None

    def _chained(self, records: list[AuditRecord]) -> tuple[bytes, Head]:
        """Return the lines that continue the chain, and its head after them."""
        head = self.head
        now = stamp(self.clock.now())
        lines = []
        for record in records:
            sequence = head.sequence + 1
            line = fmt.encode(replace(record, seq=sequence, time=now, prev=head.hash))
            head = Head(sequence, fmt.line_hash(line))
            lines.append(line)
        return b"\n".join([*lines, b""]), head

    def _resolve(
        self, batch: list[_Entry], failure: AuditUnavailable | None, seconds: float
    ) -> None:
        self._waiting -= len(batch)
        self.on_tried(seconds, failure is not None)
        for entry in batch:
            if entry.done.cancelled():
                continue
            if failure is None:
                entry.done.set_result(None)
            else:
                entry.done.set_exception(AuditUnavailable(failure.message))
        if failure is None:
            self.on_written()
