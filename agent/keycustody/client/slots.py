"""Slots replaced in place: 78 bytes of each file, and nothing else of it (docs/adr/0020).

`replace` moves files of one folder, `settle` finishes what an earlier run was killed in.

Rules:

* Before a slot is written, a record with the old and the new slot is durable in the same folder
  (docs/format.md, 9). It goes once every new slot is durable. Whatever happens in between, each
  file has its old slot, its new one, or a torn one that the record mends.
* A file is written only if it is still what was looked at: device, inode, size, time of change of
  its content, and every byte of its header.
* Symbolic links are not followed. Mode, owner, links and attributes stay; the time of modification
  moves on, so that backups take the file again.
* A record is believed only if it is ours: this user's own file, a mix of its two slots in place.

Failures are values, one for each file: one file that cannot be written stops no other.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keycustody.errors import FileUnusable, KeycustodyError, MalformedEnvelope
from keycustody.formats import envelope, rewrap_record
from keycustody.formats.envelope import SLOT_BYTES, Header
from keycustody.formats.rewrap_record import MAX_ENTRIES, Entry

#: What we leave in folders starts like that; nothing of it is an envelope.
OWN_PREFIX: Final = ".keycustody-"
_RECORD_PREFIX: Final = OWN_PREFIX + "rewrap-"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Files of one record, each open meanwhile.
AT_ONCE: Final = MAX_ENTRIES

#: Device, inode, size, and time of modification in nanoseconds.
Identity = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """An envelope as it was when it was looked at."""

    path: str
    identity: Identity
    header: Header

    @property
    def folder(self) -> str:
        """Where it is."""
        return os.path.dirname(self.path) or "."  # noqa: PTH120 - pathlib would not keep any bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A slot to be replaced: `new` is the header that the file shall have."""

    seen: Seen
    new: Header


def look(path: str) -> Seen | None:
    """Read the header of a file; None for what is no envelope.

    Raises `MalformedEnvelope` for what starts as an envelope and is none, and `FileUnusable`.
    """
    try:
        with _opened(path, _READ) as file:
            status = os.fstat(file)
            data = os.pread(file, envelope.MAX_HEADER_BYTES, 0)
    except OSError as error:
        raise _unusable("read", path, error) from error
    if not data.startswith(envelope.MAGIC):
        return None
    return Seen(path, _identity(status), envelope.parse(data)[0])


def replace(folder: str, changes: Sequence[Change]) -> list[bool | KeycustodyError]:
    """Replace the slots of files of one folder, at most `AT_ONCE`. For each: True if it was moved,
    False if its slot was the new one already, or why it was not written."""
    results: list[bool | KeycustodyError] = [False] * len(changes)
    with ExitStack() as stack:
        try:
            at = stack.enter_context(_opened(folder, _FOLDER))
        except OSError as error:
            return [_unusable("open", folder, error)] * len(changes)
        files: dict[int, int] = {}
        for index, change in enumerate(changes):
            try:
                name = os.path.basename(change.seen.path)  # noqa: PTH119 - as above
                files[index] = stack.enter_context(_opened(name, _WRITE, at))
                if not _unchanged(files[index], change):
                    del files[index]
            except OSError as error:
                results[index] = _unusable("write", change.seen.path, error)
                files.pop(index, None)
            except KeycustodyError as error:
                results[index] = error
                del files[index]
        if files:
            _write_all(at, folder, changes, files, results)
    return results


def settle(folder: str) -> Iterator[tuple[str, KeycustodyError | None]]:
    """Finish what killed runs left in a folder: the path of each file that was mended, or of what
    cannot be finished and why. Records of a run that is still at work are left alone."""
    try:
        with os.scandir(folder) as found:
            names = [one.name for one in found if one.name.startswith(_RECORD_PREFIX)]
        for name in names:
            with _opened(folder, _FOLDER) as at:
                yield from _settle_record(at, folder, name)
    except OSError as error:
        yield folder, _unusable("read", folder, error)


# -- writing ---------------------------------------------------------------------------------------


def _write_all(
    at: int,
    folder: str,
    changes: Sequence[Change],
    files: dict[int, int],
    results: list[bool | KeycustodyError],
) -> None:
    entries = [_entry(changes[index]) for index in files]
    try:
        record = _Record(at, rewrap_record.encode(entries))
    except OSError as error:
        for index in files:
            results[index] = _unusable("write a record in", folder, error)
        return
    with record:
        for index, file in files.items():
            try:
                # Once more: writing the record took its time.
                if _unchanged(file, changes[index]):
                    _write_slot(record, file, changes[index])
                    results[index] = True
            except OSError as error:
                results[index] = _unusable("write", changes[index].seen.path, error)
            except KeycustodyError as error:
                results[index] = error


class _Record:
    """A record in its folder, locked and durable. It goes at the end of the block unless a file
    may be torn; a killed process leaves it behind, and `settle` finds it."""

    def __init__(self, at: int, data: bytes) -> None:
        self.torn = False
        self._at = at
        self._name = _RECORD_PREFIX + secrets.token_hex(8)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._name, flags, 0o600, dir_fd=at)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.pwrite(self._file, data, 0) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
            os.fsync(at)
            # Before it was locked, another run may have taken it for an abandoned one.
            if not _linked(at, self._name, self._file):
                raise OSError(errno.EAGAIN, "another run is at work here")
        except BaseException:
            self._remove()
            raise

    def __enter__(self) -> "_Record":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.torn:
            os.close(self._file)
        else:
            self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._name, dir_fd=self._at)
        os.close(self._file)


def _write_slot(record: _Record, file: int, change: Change) -> None:
    offset = len(change.new.fixed)
    # Also when we are interrupted in the middle: the record then stays.
    already, record.torn = record.torn, True
    try:
        _pwrite(file, change.new.slot, offset)
    except OSError:
        _pwrite(file, change.seen.header.slot, offset)
        record.torn = already
        raise
    record.torn = already


def _pwrite(file: int, slot: bytes, offset: int) -> None:
    if os.pwrite(file, slot, offset) != len(slot):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    os.fdatasync(file)


def _unchanged(file: int, change: Change) -> bool:
    """May the file be written? False if its slot is the new one already. Raises `FileUnusable` if
    it is not what was looked at."""
    status, old, new = os.fstat(file), change.seen.header, change.new
    data = os.pread(file, len(old.fixed) + SLOT_BYTES, 0)
    same = stat.S_ISREG(status.st_mode) and _identity(status)[:3] == change.seen.identity[:3]
    if same and data == new.encode():
        return False
    if not same or _identity(status) != change.seen.identity or data != old.encode():
        raise FileUnusable(
            f"{change.seen.path} changed while it was being moved, and was left alone; run the "
            "command again."
        )
    return True


# -- finishing -------------------------------------------------------------------------------------


def _settle_record(at: int, folder: str, name: str) -> Iterator[tuple[str, KeycustodyError | None]]:
    path = str(Path(folder) / name)
    try:
        with _opened(name, _WRITE, at) as file:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                # Whoever may write in the folder could otherwise have us write.
                yield path, FileUnusable(f"{path} is another user's record of a rewrap.")
                return
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _linked(at, name, file):
                return
            whole = True
            for entry in rewrap_record.decode(os.pread(file, rewrap_record.MAX_BYTES, 0)) or ():
                mended, error = _settle_entry(at, folder, path, entry)
                whole = whole and error is None
                if mended or error is not None:
                    yield str(Path(folder) / os.fsdecode(entry.name)), error
            if whole:
                os.unlink(name, dir_fd=at)
    except (BlockingIOError, FileNotFoundError):
        return  # another run is at work, or was faster
    except OSError as error:
        yield path, _unusable("use", path, error)


def _settle_entry(
    at: int, folder: str, record: str, entry: Entry
) -> tuple[bool, KeycustodyError | None]:
    """Make a file's slot whole: whether it had to be mended, and why it could not be."""
    path = str(Path(folder) / os.fsdecode(entry.name))
    try:
        with _opened(entry.name, _WRITE, at) as file:
            data = os.pread(file, entry.offset + SLOT_BYTES, 0)
            fixed, slot = data[: entry.offset], data[entry.offset :]
            if hashlib.sha256(fixed).digest() != entry.fixed_sha256:
                return False, None  # another file took its place
            if slot in (entry.old, entry.new):
                os.fdatasync(file)
                return False, None
            if not entry.mixed(slot):
                return False, _strange(path, record, data)
            _pwrite(file, entry.new, entry.offset)
            return True, None
    except FileNotFoundError:
        return False, None
    except OSError as error:
        return False, _unusable("mend", path, error)


def _strange(path: str, record: str, data: bytes) -> KeycustodyError | None:
    """Neither slot, nor a mix of them: somebody moved the file since, or it is damaged."""
    try:
        envelope.parse(data)
    except MalformedEnvelope:
        return FileUnusable(f"The header of {path} is damaged; {record} still has its slots.")
    return None


# -- files -----------------------------------------------------------------------------------------


@contextmanager
def _opened(path: str | bytes, flags: int, at: int | None = None) -> Iterator[int]:
    file = os.open(path, flags, dir_fd=at)
    try:
        yield file
    finally:
        os.close(file)


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _linked(at: int, name: str, file: int) -> bool:
    try:
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(file))


def _entry(change: Change) -> Entry:
    fixed = change.new.fixed
    return Entry(
        os.fsencode(Path(change.seen.path).name),
        len(fixed),
        hashlib.sha256(fixed).digest(),
        change.seen.header.slot,
        change.new.slot,
    )


def _unusable(verb: str, path: str, error: OSError) -> FileUnusable:
    return FileUnusable(f"Cannot {verb} {path}: {error.strerror}.")
