"""The two ends of a stream: where bytes come from, and where they go.

An `Input` or `Output` is a path or a binary file object. Every failure of theirs is a
`FileUnusable` with one sentence that names the file.

An `Output` to a path is complete or absent: bytes go to a file without a name (O_TMPFILE) in the
target's folder, which `commit` links there and renames over the target. Even a killed process
leaves nothing behind. Where a file system cannot do that (or has no /proc), the file has a name
from the start, and everything short of a kill removes it. A path that leads to a device or a FIFO
is written directly, as a file object is. Symbolic links are followed. Nothing is synced to disk, as
with cp.
"""

import errno
import io
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, TypeAlias

from keycustody.errors import FileUnusable, InvalidRequest

Source: TypeAlias = "str | os.PathLike[str] | BinaryIO"
Target: TypeAlias = "str | os.PathLike[str] | BinaryIO"
#: Called with the bytes done and their total, None if that is not known.
Progress: TypeAlias = Callable[[int, int | None], None]

_CLOEXEC: Final = os.O_CLOEXEC
_NO_TMPFILE: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class Input:
    """A source of bytes; `size` is what a regular file held when it was opened, else None."""

    def __init__(self, stream: Any, name: str, *, owned: bool) -> None:
        self._stream = stream
        self._owned = owned
        self.name = name
        self.size = _regular_size(stream)

    @classmethod
    def open(cls, source: Source) -> "Input":
        """Open a path, or take a binary file object (which is not closed afterwards)."""
        if isinstance(source, str | os.PathLike):
            name = os.fspath(source)
            try:
                return cls(Path(name).open("rb", buffering=0), name, owned=True)
            except (OSError, ValueError) as error:
                raise _unusable("read", name, error) from error
        if not _is_binary(source, "read"):
            raise InvalidRequest("The source is a path or a binary file object.")
        return cls(source, _name_of(source), owned=False)

    def __enter__(self) -> "Input":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._owned:
            self._stream.close()

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of `buffer`; 0 at the end."""
        # One read of the file, if it can be told that: a buffered pipe's `readinto` goes on until
        # all is full, and a signal that comes between two of its reads waits for the next bytes.
        fill = getattr(self._stream, "readinto1", None) or getattr(self._stream, "readinto", None)
        try:
            if fill is not None:
                count = fill(buffer)
            else:
                data = self._stream.read(len(buffer))
                count = None if data is None else len(data)
                buffer[: count or 0] = data or b""
        except (OSError, ValueError, TypeError) as error:
            raise _unusable("read", self.name, error) from error
        if count is None:
            raise FileUnusable(f"Cannot read {self.name}: it is non-blocking.")
        return int(count)


class Output:
    """Where bytes go: a file object, a device or a FIFO as they come; `Replacement` is a file."""

    regular = False

    def __init__(self, stream: Any, name: str, *, owned: bool) -> None:
        self._stream = stream
        self._owned = owned
        self.name = name
        self.written = 0

    def __enter__(self) -> "Output":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()

    def write(self, data: memoryview | bytes) -> None:
        """Write all of `data`."""
        rest = memoryview(data)
        while rest:
            try:
                count = self._stream.write(rest)
            except (OSError, ValueError, TypeError) as error:
                raise _unusable("write", self.name, error) from error
            if count is None:
                raise FileUnusable(f"Cannot write {self.name}: it is non-blocking.")
            self.written += count
            rest = rest[count:]

    def commit(self) -> None:
        """All was written: make it stay."""
        try:
            if hasattr(self._stream, "flush"):
                self._stream.flush()
        except (OSError, ValueError) as error:
            raise _unusable("write", self.name, error) from error

    def _discard(self) -> None:
        if self._owned:
            self._stream.close()


class Replacement(Output):
    """A regular file that takes its target's place in one step, or never was."""

    regular = True

    def __init__(self, target: str, mode: int) -> None:
        folder, self._base = os.path.split(os.path.realpath(target))
        self._folder = os.open(folder, _folder_flags())
        # As long as any name may be, whatever the target's is; hidden, and recognisable.
        self._temporary = f".keycustody-{secrets.token_hex(8)}.tmp"
        try:
            descriptor, self._named = self._create(mode)
        except BaseException:
            os.close(self._folder)
            raise
        super().__init__(io.FileIO(descriptor, "wb"), target, owned=True)

    def commit(self) -> None:
        """Close the file, which may fail, and put it in its target's place."""
        try:
            if not self._named:
                self._link()
            self._stream.close()
            os.rename(self._temporary, self._base, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._named = False
        except OSError as error:
            raise _unusable("write", self.name, error) from error

    def _create(self, mode: int) -> tuple[int, bool]:
        if _anonymous_files():
            try:
                flags = os.O_TMPFILE | os.O_WRONLY | _CLOEXEC
                return os.open(".", flags, mode, dir_fd=self._folder), False
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | _CLOEXEC
        return os.open(self._temporary, flags, mode, dir_fd=self._folder), True

    def _link(self) -> None:
        # Naming a dir_fd makes Python call linkat with AT_SYMLINK_FOLLOW, as open(2) has it.
        os.link(
            f"/proc/self/fd/{self._stream.fileno()}",
            self._temporary,
            dst_dir_fd=self._folder,
            follow_symlinks=True,
        )
        self._named = True

    def _discard(self) -> None:
        """Remove whatever was not committed. Runs once, also when all went well."""
        try:
            self._stream.close()
        finally:
            try:
                if self._named:
                    os.unlink(self._temporary, dir_fd=self._folder)
            except FileNotFoundError:
                pass  # the folder's owner was faster
            finally:
                os.close(self._folder)


def open_output(target: Target, *, mode: int) -> Output:
    """Open a target. `mode` is for a new file, less the umask; a replaced file's mode is not kept.

    Raises `FileUnusable` for a folder, for what may not be written, and for a read-only file.
    """
    if not isinstance(target, str | os.PathLike):
        if not _is_binary(target, "write"):
            raise InvalidRequest("The target is a path or a binary file object.")
        return Output(target, _name_of(target), owned=False)
    name = os.fspath(target)
    try:
        kind = _kind(name)
        if kind and not os.access(name, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if kind == stat.S_IFDIR or name.endswith("/"):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if kind in (None, stat.S_IFREG):
            return Replacement(name, mode)
        return Output(Path(name).open("wb", buffering=0), name, owned=True)
    except (OSError, ValueError) as error:
        raise _unusable("write", name, error) from error


def _is_binary(stream: object, verb: str) -> bool:
    return hasattr(stream, verb) and not isinstance(stream, io.TextIOBase)


def _kind(name: str) -> int | None:
    try:
        return stat.S_IFMT(Path(name).stat().st_mode)
    except FileNotFoundError:
        return None


def _anonymous_files() -> bool:
    return hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir()


def _folder_flags() -> int:
    # O_PATH needs no permission to list the folder.
    return os.O_DIRECTORY | _CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


def _regular_size(stream: Any) -> int | None:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _name_of(stream: Any) -> str:
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) else "the given stream"


def _unusable(verb: str, name: str, error: Exception) -> FileUnusable:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return FileUnusable(f"Cannot {verb} {name}: {reason}.")
