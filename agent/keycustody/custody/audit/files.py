"""The files of a journal: each is named by the sequence number of its first record.

So no file is ever renamed, their order is that of their names, the newest is the one that is
written, and one that is missing is seen.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from keycustody.errors import AuditUnavailable
from keycustody.formats.audit import MAX_LINE_BYTES

#: The newest signed head, beside the journal: for operators to keep elsewhere.
HEAD_NAME = "audit.head"

_NAME = re.compile(r"audit-([0-9]{20})\.jsonl")
_BLOCK_BYTES = 64 * 1024


class JournalFile(NamedTuple):
    """One file: the sequence number that its name promises, and where it is."""

    first: int
    path: Path


def path_of(folder: Path, first: int) -> Path:
    """Return where the file is whose first record has that sequence number."""
    return folder / f"audit-{first:020}.jsonl"


def files_of(folder: Path) -> list[JournalFile]:
    """Return the files of a journal, oldest first. Raises `AuditUnavailable`."""
    try:
        names = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    except OSError as error:
        raise AuditUnavailable(f"{folder} cannot be read: {error.strerror}.") from error
    return sorted(JournalFile(int(match[1]), path) for match, path in names if match)


def promised(path: Path) -> int | None:
    """Return the first sequence number that a file's name promises; None if it promises none."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their line ends. One that is too long, or under way, comes
    without. Raises `AuditUnavailable`."""
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                yield line
    except OSError as error:
        raise AuditUnavailable(f"{path} cannot be read: {error.strerror}.") from error


def last_lines(path: Path, count: int) -> list[bytes]:
    """Return up to that many of the last whole lines, oldest first, without their line ends."""
    try:
        with path.open("rb") as stream:
            start, tail = stream.seek(0, os.SEEK_END), b""
            while start and tail.count(b"\n") <= count:
                size = min(start, _BLOCK_BYTES)
                start = stream.seek(start - size)
                tail = stream.read(size) + tail
    except OSError as error:
        raise AuditUnavailable(f"{path} cannot be read: {error.strerror}.") from error
    whole = tail[: tail.rfind(b"\n") + 1].split(b"\n")[:-1]
    return whole[max(0, len(whole) - count) :]


def lines_after(path: Path, offset: int) -> tuple[list[bytes], int]:
    """Return the whole lines from that offset on, some MiB at most, and the offset after them."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(4 * MAX_LINE_BYTES)
    except OSError as error:
        raise AuditUnavailable(f"{path} cannot be read: {error.strerror}.") from error
    end = data.rfind(b"\n") + 1
    return data[:end].split(b"\n")[:-1], offset + end


def durable_end(descriptor: int) -> tuple[int, bytes]:
    """Return where the last whole line of an open file ends, and that line."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - 2 * MAX_LINE_BYTES)
    tail = os.pread(descriptor, size - start, start)
    end = tail.rfind(b"\n") + 1
    line = tail[:end].removesuffix(b"\n").rpartition(b"\n")[2]
    return start + end, line


def write_durably(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of it there, and have it on the disk. Raises `OSError`."""
    view = memoryview(data)
    while view:
        # With fdatasync(2) in the same call: a thread that is back must wait for the interpreter.
        written = os.pwritev(descriptor, [view], offset, os.RWF_DSYNC)
        offset += written
        view = view[written:]


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
