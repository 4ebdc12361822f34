"""The agent's state folder: private, and held by one process at a time.

`hold` takes an `flock` on <folder>/lock that lives as long as the process, so that two agents, or
an agent and an offline command, never write one journal, and the kernel frees it whatever happens.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keycustody.errors import InsecurePermissions, StateLocked


def prepare(folder: Path, *, mode: int = 0o700) -> None:
    """Make the folder if it is missing; `InsecurePermissions` if others may write to it, or, for
    mode 0700, even open it."""
    try:
        _make(folder, mode)
        found = folder.stat()
    except OSError as error:
        raise InsecurePermissions(
            f"The folder {folder} cannot be made or used: {error.strerror}."
        ) from error
    open_to_others = stat.S_IMODE(found.st_mode) & ~mode & 0o077
    if found.st_uid not in (os.geteuid(), 0) or open_to_others:
        raise InsecurePermissions(
            f"The folder {folder} is open to others; make it yours and run "
            f"`chmod {mode:o} {folder}`."
        )


def _make(folder: Path, mode: int) -> None:
    """Make what is missing of it, whatever the umask: the agent's own would let nobody in."""
    if folder.is_dir():
        return
    _make(folder.parent, 0o755)
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the folder for the length of the block; `StateLocked` if somebody else does."""
    prepare(folder)
    with lock(folder / "lock", f"Another agent or command uses the state folder {folder}"):
        yield


@contextmanager
def lock(path: Path, taken: str) -> Iterator[None]:
    """Hold an exclusive `flock` on a file; `StateLocked` saying `taken` if it is held."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise InsecurePermissions(
            f"The lock file {path} cannot be opened: {error.strerror}; remove it."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateLocked(f"{taken}; stop it first.") from error
        yield
    finally:
        os.close(descriptor)
