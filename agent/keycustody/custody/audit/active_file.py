"""The newest file of a journal: what is appended is durable, or nothing of it is left.

A new file begins in steps, and a kill between any two of them loses nothing: the old file is
durable before the new one is made; the new one is durable, and empty, before a record goes there;
and the one who opens the journal next finds it empty, and goes on after the end of the old one.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from keycustody.custody.audit.files import (
    durable_end,
    files_of,
    path_of,
    sync_folder,
    write_durably,
)
from keycustody.custody.clock import Clock, read_stamp
from keycustody.errors import AuditUnavailable
from keycustody.formats.audit import GENESIS, Head, decode, line_hash

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

_log = structlog.get_logger(__name__)


class ActiveFile:
    """The open file. `head` is the last durable record when it was opened, and `clock` goes on from
    its time. All methods that do not say otherwise raise `OSError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = files_of(folder)
        first = found[-1].first if found else 1
        self._open(path_of(folder, first))
        self.size, last = durable_end(self._descriptor)
        self._torn = os.fstat(self._descriptor).st_size > self.size
        if self._torn:
            # It follows the last line end, so it was never acknowledged: a crash cut it short.
            _log.warning("audit.unfinished_line", path=str(self.path))
            self.cut_back()
        if not last and len(found) > 1:
            last = _last_line(found[-2].path)
        self.head, self.clock = Head(0, GENESIS), Clock()
        if last:
            record = decode(last)
            self.head = Head(record.seq, line_hash(last))
            self.clock = Clock(read_stamp(record.time))
            for finding in self.clock.findings():
                _log.warning("clock.behind", finding=finding)
        if self.head.sequence < first - 1:
            raise AuditUnavailable(
                f"The audit journal cannot go on: {self.path} begins with record {first}, and the "
                f"newest that is there before it is {self.head.sequence}; put back what is missing."
            )

    def append(self, data: bytes) -> None:
        """Add whole lines, durably."""
        self._check()
        self._torn = True
        write_durably(self._descriptor, data, self.size)
        self._torn = False
        self.size += len(data)

    def begin_next(self, first: int) -> None:
        """Go on in a new file, whose first record will have that sequence number."""
        self._check()
        before = self._descriptor
        self._open(path_of(self._folder, first), _empty)
        self.size = 0
        os.close(before)

    def cut_back(self) -> None:
        """Leave no part of a record behind, if that can be done now; else before the next one."""
        with contextlib.suppress(OSError):
            if self._torn:
                os.ftruncate(self._descriptor, self.size)
                self._torn = False

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _open(self, path: Path, fits: Callable[[int], None] = lambda _: None) -> None:
        descriptor = os.open(path, _FLAGS, 0o600)
        try:
            fits(descriptor)
            os.fchmod(descriptor, 0o600)
            sync_folder(self._folder)
            status = os.fstat(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        self.path, self._descriptor = path, descriptor
        self._name, self._opened = str(path), (status.st_dev, status.st_ino)

    def _check(self) -> None:
        """Raise if the file is no longer the one that is open, as it was left."""
        if self._torn:
            os.ftruncate(self._descriptor, self.size)
            self._torn = False
        named = os.lstat(self._name)
        if (named.st_dev, named.st_ino, named.st_size) != (*self._opened, self.size):
            raise OSError(errno.ESTALE, "the journal was moved, replaced or cut")


def _empty(descriptor: int) -> None:
    # One that an attempt before left behind is as good as new.
    if os.fstat(descriptor).st_size:
        raise OSError(errno.EEXIST, "something is where the next file of the journal must be")


def _last_line(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return durable_end(descriptor)[1]
    finally:
        os.close(descriptor)
