"""Reading a journal, whether or not an agent writes it meanwhile. Nothing is verified here."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from keycustody.custody.audit.files import JournalFile, files_of, lines_of
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
            if since is None or time_of(record) >= since:
                yield line, record


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield a file's lines without their line ends; not one that is under way."""
    return (line[:-1] for line in lines_of(path) if line.endswith(b"\n"))


def time_of(record: AuditRecord) -> datetime:
    """Return when it was written. Raises `AuditChainBroken`."""
    try:
        return datetime.fromisoformat(record.time)
    except ValueError as error:
        raise AuditChainBroken(f"Record {record.seq} has no time.") from error


def _files_since(files: list[JournalFile], since: datetime | None) -> list[JournalFile]:
    """Leave out a file if the one after it began before that time."""
    if since is None:
        return files
    for older, newer in reversed(list(pairwise(files))):
        first = next(whole_lines(newer.path), None)
        if first is not None and time_of(_decoded(newer.path, 1, first)) < since:
            return files[files.index(older) + 1 :]
    return files


def _decoded(path: Path, number: int, line: bytes) -> AuditRecord:
    try:
        return fmt.decode(line)
    except AuditChainBroken as error:
        raise AuditChainBroken(f"{path}, line {number}: {error.message}.") from error
