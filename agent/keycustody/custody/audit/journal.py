"""The journal's writer: records in, and durable when their future is done.

Records that are there together share one fsync (group commit). In a crowd they are written when
there are half as many as there lately were requests under way at once, and a few milliseconds after
the first of them at the latest. A thread writes them. Only a caller who is alone just then is
spared the way to that thread and back, as long as the disk is quick: the loop writes its record
while the token works (docs/adr/0015, 0029). If a record cannot be written, the file is cut back to
its last durable line, the request is refused with `AuditUnavailable`, and the next record tries
again: service resumes by itself when there is room. A file that is large enough is followed by a
new one.

A record's time is when it is written, so that times are in the order of the sequence.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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

#: A write that takes longer holds up the loop for too long. For so many times as long, all writes
#: are then the thread's: slow ones cost the loop a tenth of its time at most.
_QUICK_SECONDS = 0.02
_CAUTION = 10

#: The longest that a record waits for others; and how much of the company is remembered after a
#: write: much, unless it was waited for in vain.
_DELAY_SECONDS = 0.004
_REMEMBERED, _VAIN = 0.995, 0.8
#: With less company than this, nobody waits for others: they would wait for each other's fsync.
_CROWD = 6.0

_log = structlog.get_logger(__name__)


class _Tried(NamedTuple):
    """Why a batch was not written, if it was not, and how long that took."""

    failure: AuditUnavailable | None
    seconds: float


class _Entry(NamedTuple):
    record: AuditRecord
    done: "asyncio.Future[None]"


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
        #: Records that nobody writes yet, and what will write them.
        self._pending: list[_Entry] = []
        self._timer: asyncio.Handle | None = None
        #: How many requests were lately under way at once.
        self._company = 1.0
        #: Was the last record that of the only request?
        self._alone = True
        #: Writes one batch at a time.
        self._thread = ThreadPoolExecutor(1, "audit")
        self._writing: asyncio.Future[_Tried] | None = None
        #: Until then, the loop does not write by itself (time.monotonic()).
        self._cautious_until = 0.0

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
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        while self._pending or self._writing:
            self._flush()
            if self._writing is not None:
                await asyncio.wait({self._writing})
        self._thread.shutdown()
        self._file.close()

    def append(self, record: AuditRecord, *, under_way: int = 0) -> "asyncio.Future[None]":
        """Begin to write one record, whose `time`, `seq` and `prev` are set here; durable when the
        future is done. `under_way` is the number of requests that will have records, this one
        included; 0 if it is none of them, so that nothing is known of who else waits.

        The future fails with `AuditUnavailable` if the record was not written. If it is cancelled,
        the record is written all the same.
        """
        entry = _Entry(record, self._loop.create_future())
        self._pending.append(entry)
        self._company = max(self._company, under_way)
        self._alone = under_way == 1
        if self._company < _CROWD or len(self._pending) * 2 >= self._company:
            # Not at once, even if it is alone: first, the caller sends the token its work (if that
            # is one part: keycustody.custody.items).
            self._set(self._loop.call_soon(self._flush))
        elif self._timer is None:
            self._set(self._loop.call_later(_DELAY_SECONDS, self._flush, _VAIN))
        return entry.done

    def _set(self, timer: asyncio.Handle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _flush(self, remembered: float = _REMEMBERED) -> None:
        """Write what is there: here for one who is alone, else by the thread, when it is done with
        what it has."""
        self._set(None)
        self._company *= remembered
        if self._writing is not None or not self._pending:
            return
        batch, self._pending = self._pending, []
        try:
            data, head = self._chained([entry.record for entry in batch])
        except ValueError:
            self._resolve(batch, _Tried(self._refusal("a record cannot be encoded"), 0.0))
            return
        cautious = time.monotonic() < self._cautious_until
        if len(batch) == 1 and self._alone and not cautious:
            self._resolve(batch, self._try(data, head))
        else:
            self._writing = self._loop.run_in_executor(self._thread, self._try, data, head)
            self._writing.add_done_callback(partial(self._written, batch))

    def _written(self, batch: list[_Entry], done: "asyncio.Future[_Tried]") -> None:
        self._writing = None
        self._resolve(batch, done.result())
        self._flush()

    def _try(self, data: bytes, head: Head) -> _Tried:
        started = time.perf_counter()
        failure = self._write(data, head)
        return _Tried(failure, time.perf_counter() - started)

    def _write(self, data: bytes, head: Head) -> AuditUnavailable | None:
        """Write lines durably, which end with that head; returns why not."""
        try:
            if self._file.size >= self._rotate_bytes:
                self._file.begin_next(self.head.sequence + 1)
                self.rotations += 1
            self._file.append(data)
        except OSError as error:
            self._file.cut_back()
            return self._refusal(error.strerror or type(error).__name__)
        self.head = head
        return None

    def _refusal(self, reason: str) -> AuditUnavailable:
        with contextlib.suppress(OSError):  # the log may be on the same full disk
            _log.error("audit.unavailable", path=str(self.path), reason=reason)
        return AuditUnavailable(
            f"The audit record cannot be written ({reason}), so nothing is answered; "
            "the agent resumes when its audit journal can be written again."
        )

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

    def _resolve(self, batch: list[_Entry], tried: _Tried) -> None:
        if tried.seconds > _QUICK_SECONDS:
            self._cautious_until = time.monotonic() + _CAUTION * tried.seconds
        self.on_tried(tried.seconds, tried.failure is not None)
        for entry in batch:
            if entry.done.cancelled():
                continue
            if tried.failure is None:
                entry.done.set_result(None)
            else:
                entry.done.set_exception(AuditUnavailable(tried.failure.message))
        if tried.failure is None:
            self.on_written()
