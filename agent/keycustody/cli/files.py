"""File arguments: paths, and `-` for a pipe.

Small results are written to a temporary file beside their destination and renamed, so that a
failure leaves nothing behind and a reader never sees half of one. Envelopes are the client's
business (`encrypt_file`, `decrypt_file`), which keeps the same promise.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from keycustody.errors import FileUnusable

PIPE = "-"


def source(argument: str) -> Path | BinaryIO:
    """What to read: the path, or the standard input."""
    return sys.stdin.buffer if argument == PIPE else Path(argument)


def destination(argument: str, *, binary: bool = True) -> Path | BinaryIO:
    """What to write: the path, or the standard output, which for `binary` is no terminal."""
    if argument != PIPE:
        return Path(argument)
    if binary and sys.stdout.isatty():
        raise FileUnusable("The result is binary and the output is a terminal; use -o FILE.")
    return sys.stdout.buffer


def read(argument: str, limit: int) -> bytes:
    """At most `limit` bytes of a file or of the standard input. Raises `FileUnusable`."""
    try:
        if argument == PIPE:
            return sys.stdin.buffer.read(limit)
        with Path(argument).open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise FileUnusable(f"{argument}: cannot be read: {error.strerror}.") from error


def write(argument: str, data: bytes, *, binary: bool = True) -> None:
    """Write a small result to a file, or to the standard output. Raises `FileUnusable`."""
    if argument == PIPE:
        destination(argument, binary=binary)
        _write_pipe(data)
        return
    path = Path(argument)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or a named pipe; a folder fails here
        else:
            _replace(path, data)
    except OSError as error:
        raise FileUnusable(f"{argument}: cannot be written: {error.strerror}.") from error


def _write_pipe(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise FileUnusable(f"The output cannot be written: {error.strerror}.") from error


def _replace(path: Path, data: bytes) -> None:
    mode = 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
        part.replace(path)
    except BaseException:
        part.unlink()
        raise


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
