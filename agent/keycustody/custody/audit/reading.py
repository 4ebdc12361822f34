"""Reading a journal, whether or not an agent writes it meanwhile. Nothing is verified here."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from keycustody.custody.audit.files import (
    JournalFile,
    files_of,
    last_lines,
    lines_after,
    lines_of,
    path_of,
)
from keycustody.custody.clock import read_stamp
from keycustody.errors import AuditChainBroken
from keycustody.formats import audit as fmt
from keycustody.formats.audit import AuditRecord


def records(folder: Path, since: datetime | None = None) -> Iterator[AuditRecord]:
    """Yield the durable records in order, across files; with `since`, those from then on.

    Opens only files that can hold such records. Raises `AuditChainBroken` for what is no record,
    and `AuditUnavailable` if a file cannot be read.
    """
    for _, record in lines_since(folder, since):
        yield record


def lines_since(folder: Path, since: datetime | None = None) -> Iterator[tuple[bytes, AuditRecord]]:
    """The same, each with its line."""
    for file in _files_since(files_of(folder), since):
        for number, line in enumerate(whole_lines(file.path), start=1):
            record = _decoded(file.path, number, line)
            if since is None or read_stamp(record.time) >= since.timestamp():
                yield line, record


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield a file's lines without their line ends; not one that is under way."""
    return (line[:-1] for line in lines_of(path) if line.endswith(b"\n"))


def last(folder: Path, count: int) -> list[tuple[bytes, AuditRecord]]:
    """Return the last records, up to that many, oldest first."""
    found: list[tuple[bytes, AuditRecord]] = []
    for file in reversed(files_of(folder)):
        lines = last_lines(file.path, count - len(found))
        found[:0] = [(line, _decoded(file.path, 0, line)) for line in lines]
        if len(found) >= count:
            break
    return found


class Follower:
    """Reads what is appended after a record, across files."""

    def __init__(self, folder: Path, after: int) -> None:
        self._folder = folder
        self._after = after
        self._path: Path | None = None
        self._offset = 0

    def new(self) -> list[tuple[bytes, AuditRecord]]:
        """Return what came since the last time."""
        found: list[tuple[bytes, AuditRecord]] = []
        while True:
            if self._path is None:
                files = [f for f in files_of(self._folder) if f.first <= self._after + 1]
                if not files:
                    return found
                self._path, self._offset = files[-1].path, 0
            lines, self._offset = lines_after(self._path, self._offset)
            for line in lines:
                record = _decoded(self._path, 0, line)
                if record.seq > self._after:
                    found.append((line, record))
                    self._after = record.seq
            # A file that is not the newest any more is complete, once nothing new was in it.
            following = path_of(self._folder, self._after + 1)
            if lines or following == self._path or not following.exists():
                return found
            self._path, self._offset = following, 0


def _files_since(files: list[JournalFile], since: datetime | None) -> list[JournalFile]:
    """Leave out a file if the one after it began before that time."""
    if since is None:
        return files
    for older, newer in reversed(list(pairwise(files))):
        first = next(whole_lines(newer.path), None)
        if (
            first is not None
            and read_stamp(_decoded(newer.path, 1, first).time) < since.timestamp()
        ):
            return files[files.index(older) + 1 :]
    return files


def _decoded(path: Path, number: int, line: bytes) -> AuditRecord:
    try:
        return fmt.decode(line)
    except AuditChainBroken as error:
        where = f"{path}, line {number}" if number else str(path)
        raise AuditChainBroken(f"{where}: {error.message}.") from error
