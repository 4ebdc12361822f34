"""The audit journal: one durable, chained record for each request, before its answer.

A record is on disk when the future of its `append` is done. One thread writes, and records that
arrive together share one fsync (group commit). Only a caller who is alone is spared the way to that
thread and back, as long as the disk is quick (docs/adr/0015). If a record cannot be written, the
file is cut back to its last durable line, the request is refused with `AuditUnavailable`, and the
next record tries again: service resumes by itself when there is room.

`verify` reads a journal from its first line; it streams. What it does not do: sign the head, or
notice that the newest records were cut off (docs/format.md, 8).
"""

import asyncio
import contextlib
import errno
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from keycustody.custody.clock import Clock, read_stamp, stamp
from keycustody.errors import AuditChainBroken, AuditUnavailable
from keycustody.formats import audit as fmt
from keycustody.formats.audit import AuditRecord

FILE_NAME = "audit.jsonl"

#: Records that one fsync may cover; bounds how long a stop or a failure can take.
_BATCH = 1024

#: A write that took longer blocked the loop for too long: the next ones are the thread's.
_QUICK_SECONDS = 0.02
_CAUTIOUS_RECORDS = 1000

_log = structlog.get_logger(__name__)


class _Entry(NamedTuple):
    record: AuditRecord
    done: "asyncio.Future[None]"


class _Stop(NamedTuple):
    """Tells the thread to end after what came before."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last durable record: its sequence number, and its hash, which the next one will name."""

    sequence: int
    hash: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` read."""

    path: Path
    records: int
    head: str
    #: Bytes after the last line end: a record under way, or cut short; never acknowledged.
    unfinished: int


class Journal:
    """The open journal. Use as an async context manager, in the loop that will append."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self.head = Head(0, fmt.GENESIS)
        #: What records are stamped by, and decisions made by: never before the last record.
        self.clock = Clock()
        self._entries: queue.SimpleQueue[_Entry | _Stop] = queue.SimpleQueue()
        self._descriptor = -1
        self._size = 0
        #: Records that were appended and are not resolved: with none, the thread is idle.
        self._waiting = 0
        #: Records for which the loop will not write by itself.
        self._cautious = 0
        # Did a write fail? Then a part of it may follow the last durable line.
        self._torn = False

    async def __aenter__(self) -> "Journal":
        try:
            self._open()
        except OSError as error:
            raise AuditUnavailable(
                f"The audit journal {self.path} cannot be opened: {error.strerror}."
            ) from error
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._entries.put(_Stop())
        await asyncio.to_thread(self._thread.join)
        os.close(self._descriptor)

    def append(self, record: AuditRecord, *, alone: bool = False) -> "asyncio.Future[None]":
        """Begin to write one record, whose `seq`, `time` and `prev` are set here; durable when the
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
        if time.perf_counter() - started > _QUICK_SECONDS:
            self._cautious = _CAUTIOUS_RECORDS
        self._resolve([entry], failure)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, 0o600)
        os.fchmod(self._descriptor, 0o600)
        self._size, last = _durable_end(self._descriptor)
        unfinished = os.fstat(self._descriptor).st_size - self._size
        if unfinished:
            # It follows the last line end, so it was never acknowledged: a crash cut it short.
            _log.warning("audit.unfinished_line", path=str(self.path), bytes=unfinished)
            os.ftruncate(self._descriptor, self._size)
        if last:
            record = fmt.decode(last)
            self.head = Head(record.seq, fmt.line_hash(last))
            self.clock = Clock(read_stamp(record.time))
            for finding in self.clock.findings():
                _log.warning("clock.behind", finding=finding)
        _sync_folder(self.path.parent)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            batch: list[_Entry] = []
            entry = self._entries.get()
            while True:
                if isinstance(entry, _Stop):
                    stopping = True
                    break
                batch.append(entry)
                if len(batch) == _BATCH or self._entries.empty():
                    break
                entry = self._entries.get()
            if batch:
                failure = self._write([entry.record for entry in batch])
                self._loop.call_soon_threadsafe(self._resolve, batch, failure)

    def _write(self, records: list[AuditRecord]) -> AuditUnavailable | None:
        """Write records durably; returns why not. Nothing else leaves: the thread must live on."""
        try:
            data, head = self._chained(records)
            self._check_file()
            self._torn = True
            _write_all(self._descriptor, data, self._size)
            os.fdatasync(self._descriptor)
            self._torn = False
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "a record cannot be encoded"
            _log.error("audit.unavailable", path=str(self.path), reason=reason)
            self._cut_back()
            return AuditUnavailable(
                f"The audit record cannot be written ({reason}), so nothing is answered; "
                "the agent resumes when its audit journal can be written again."
            )
        self._size += len(data)
        self.head = head
        return None

    def _chained(self, records: list[AuditRecord]) -> tuple[bytes, Head]:
        """Return the lines that continue the chain, and its head after them."""
        head, time_now = self.head, stamp(self.clock.now())
        lines = []
        for record in records:
            sequence = head.sequence + 1
            line = fmt.encode(replace(record, seq=sequence, time=time_now, prev=head.hash))
            head = Head(sequence, fmt.line_hash(line))
            lines.append(line)
        return b"\n".join([*lines, b""]), head

    def _check_file(self) -> None:
        """Raise `OSError` if the file is no longer the journal that is open, as it was left."""
        if self._torn:
            os.ftruncate(self._descriptor, self._size)
        opened, named = os.fstat(self._descriptor), self.path.lstat()
        if (opened.st_ino, opened.st_dev, opened.st_size) != (
            named.st_ino,
            named.st_dev,
            self._size,
        ):
            raise OSError(errno.ESTALE, "the journal was moved, replaced or cut")

    def _cut_back(self) -> None:
        """Leave no part of a record behind, if that can be done now; else before the next one."""
        with contextlib.suppress(OSError):
            if self._torn:
                os.ftruncate(self._descriptor, self._size)
                self._torn = False

    def _resolve(self, batch: list[_Entry], failure: AuditUnavailable | None) -> None:
        self._waiting -= len(batch)
        for entry in batch:
            if entry.done.cancelled():
                continue
            if failure is None:
                entry.done.set_result(None)
            else:
                entry.done.set_exception(AuditUnavailable(failure.message))


def draft(
    *,
    request: str,
    principal: str,
    via: str,
    operation: str,
    rules: str,
    key: str = "",
    version: int = 0,
    algorithm: str = "",
    context: dict[str, str] | None = None,
    items: list[str] | None = None,
    grant: str = "",
    result: str = "OK",
    detail: str = "",
    microseconds: int = 0,
) -> AuditRecord:
    """Return a record without its time and its place in the chain, which the journal gives it."""
    return AuditRecord(
        v=1,
        seq=0,
        time="",
        request=request,
        principal=principal,
        via=via,
        operation=operation,
        key=key,
        version=version,
        algorithm=algorithm,
        context=context or {},
        items=items or [],
        rules=rules,
        grant=grant,
        result=result,
        detail=detail,
        microseconds=microseconds,
        prev="",
    )


def verify(path: Path) -> Report:
    """Check every line of a journal (a file, or a folder that holds one).

    Raises `AuditChainBroken` naming file, line and what does not fit, and `AuditUnavailable` if the
    file cannot be read.
    """
    file = path / FILE_NAME if path.is_dir() else path
    chain = fmt.Chain()
    unfinished = 0
    try:
        for line in _lines(file):
            if not line.endswith(b"\n") and len(line) <= fmt.MAX_LINE_BYTES:
                unfinished = len(line)
                break
            chain.add(line.removesuffix(b"\n"))
    except AuditChainBroken as error:
        line_number = chain.sequence + 1
        raise AuditChainBroken(f"{file}, line {line_number}: {error.message}.") from error
    except OSError as error:
        raise AuditUnavailable(f"{file} cannot be read: {error.strerror}.") from error
    return Report(file, chain.sequence, chain.head, unfinished)


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while line := stream.readline(fmt.MAX_LINE_BYTES + 1):
            yield line


def _durable_end(descriptor: int) -> tuple[int, bytes]:
    """Return where the last line ends, and that line."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - 2 * fmt.MAX_LINE_BYTES)
    tail = os.pread(descriptor, size - start, start)
    end = tail.rfind(b"\n") + 1
    line = tail[:end].removesuffix(b"\n").rpartition(b"\n")[2]
    return start + end, line


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def records(folder: Path, since: datetime | None = None) -> Iterator[AuditRecord]:
    """Yield the durable records in order; with `since`, those from then on."""
    for line in _lines(folder / FILE_NAME):
        if line.endswith(b"\n"):
            record = fmt.decode(line[:-1])
            if since is None or read_stamp(record.time) >= since.timestamp():
                yield record
