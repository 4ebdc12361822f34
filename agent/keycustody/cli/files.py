"""File arguments: paths, and `-` for a pipe."""

import sys
from pathlib import Path
from typing import BinaryIO

from keycustody.errors import FileUnusable

PIPE = "-"


def source(argument: str) -> Path | BinaryIO:
    """What to read: the path, or the standard input."""
    if argument != PIPE:
        return Path(argument)
    if sys.stdin is None:
        raise FileUnusable("The standard input is closed.")
    return sys.stdin.buffer


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
