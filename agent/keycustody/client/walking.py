"""Files at paths: each file, and each of a folder with all that is below it.

Symbolic links are not followed, special files are left out, and so is what we leave in folders
ourselves. Memory does not grow with the number of files.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from keycustody.client.slots import OWN_PREFIX
from keycustody.errors import FileUnusable

Found = TypeVar("Found")
#: What cannot be looked at, and why.
Unreadable = tuple[str, FileUnusable]


def files(
    paths: Iterable["str | os.PathLike[str]"], enter: Callable[[str], Iterable[Found]]
) -> Iterator[str | Unreadable | Found]:
    """Yield the path of each file. `enter` is called with each folder before its files come, and
    what it gives is yielded too."""
    for given in paths:
        path = os.fspath(given)
        try:
            mode = os.lstat(path).st_mode
        except OSError as error:
            yield _unreadable(path, error)
            continue
        if stat.S_ISREG(mode):
            yield from enter(os.path.dirname(path) or ".")  # noqa: PTH120 - any bytes
            yield path
        elif not stat.S_ISDIR(mode):
            yield path, FileUnusable(f"{path} is neither a file nor a folder.")
        else:
            folders = [path]
            while folders:
                folder = folders.pop()
                yield from enter(folder)
                yield from _folder(folder, folders)


def _folder(folder: str, below: list[str]) -> Iterator[str | Unreadable]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and not entry.name.startswith(OWN_PREFIX):
                    yield entry.path
    except OSError as error:
        yield _unreadable(folder, error)


def _unreadable(path: str, error: OSError) -> Unreadable:
    return path, FileUnusable(f"It cannot be read: {error.strerror}.")
