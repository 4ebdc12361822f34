"""File arguments: paths, and `-` for a pipe."""

import io
import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from keycustody.errors import FileUnusable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIPE = "-"


def source(argument: str) -> Path | BinaryIO:
    """What to read: the path, or the standard input."""
    if argument != PIPE:
        return Path(argument)
    if sys.stdin is None:
        raise FileUnusable("The standard input is closed.")
    if sys.stdin is not sys.__stdin__:  # somebody put something else there
        return sys.stdin.buffer
    return io.BufferedReader(cast("io.RawIOBase", _StandardInput()))


class _StandardInput(io.RawIOBase):
    """The standard input, for the main thread: a signal ends each of its reads. One that comes just
    before a read of Python's own waits there for the next bytes."""

    name = "<stdin>"

    def __init__(self) -> None:
        self._signals, woken_by = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken_by, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """See `io.IOBase.fileno`."""
        return sys.stdin.fileno()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """See `io.RawIOBase.readinto`."""
        here = self.fileno()
        while True:
            # The handler of a signal runs when this returns.
            ready, _, _ = select.select([here, self._signals], [], [])
            if here in ready:
                return os.readv(here, [buffer])
            os.read(self._signals, 4096)


def destination(argument: str, *, binary: bool = True) -> Path | BinaryIO:
    """What to write: the path, or the standard output, which for `binary` is no terminal."""
    if argument != PIPE:
        return Path(argument)
    if sys.stdout is None:
        raise FileUnusable("The standard output is closed.")
    if binary and sys.stdout.isatty():
        raise FileUnusable("The result is binary and the output is a terminal; use -o FILE.")
    return sys.stdout.buffer


def read(argument: str, limit: int) -> bytes:
    """At most `limit` bytes of a file or of the standard input. Raises `FileUnusable`."""
    try:
        chosen = source(argument)
        if not isinstance(chosen, Path):
            return chosen.read(limit)
        with chosen.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise FileUnusable(f"{argument}: cannot be read: {error.strerror}.") from error


def write(argument: str, data: bytes, *, binary: bool = True) -> None:
    """Write a small result, complete or not at all. Raises `FileUnusable`."""
    from keycustody.client.files import open_output

    with open_output(destination(argument, binary=binary), mode=0o666) as output:
        output.write(data)
        output.commit()
