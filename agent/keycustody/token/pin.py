"""Where a PIN comes from, and how a new one is made and kept.

A source is called for the PIN each time one is needed, so that a corrected file is seen. No error,
`repr` or path here ever holds a PIN. Raises `PinUnavailable` and `InsecurePermissions`.
"""

import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from keycustody.errors import FileUnusable, InsecurePermissions, PinUnavailable

#: Whatever gives the PIN. It may block (a terminal, a network file system).
PinSource = Callable[[], bytes]

#: More than any token takes; bounds what is read from a file named by mistake.
_READ_BYTES = 4096
_CREDENTIALS = "CREDENTIALS_DIRECTORY"

#: Letters and digits that cannot be taken for each other, as RFC 4648 base32 has them.
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
#: 120 bits. Tokens take 4 to 32 characters at least in common.
_CHARACTERS = 24


@dataclass(frozen=True, slots=True)
class FilePin:
    """A regular file that holds the PIN alone and that nobody but its owner may touch."""

    path: Path

    def __call__(self) -> bytes:
        """Read the PIN."""
        return _read(self.path, owner_only=True)


@dataclass(frozen=True, slots=True)
class CredentialPin:
    """A systemd credential (systemd.exec(5), LoadCredential=): a name, never a path."""

    name: str

    def __call__(self) -> bytes:
        """Read the PIN."""
        folder = os.environ.get(_CREDENTIALS)
        if not folder:
            raise PinUnavailable(
                f"The PIN is systemd credential {self.name!r}, and systemd gave none: it needs "
                "LoadCredential= in the service's unit."
            )
        if "/" in self.name or self.name in ("", ".", ".."):
            raise PinUnavailable(f"{self.name!r} is not the name of a systemd credential.")
        # systemd's folder is on a file system of its own and closed to others; the files in it may
        # show an access mask for a group.
        return _read(Path(folder) / self.name, owner_only=False)


@dataclass(slots=True)
class PromptPin:
    """A person at a terminal. `ask` returns what was typed, or None without a terminal. Asked once:
    the answer is kept in memory for workers that start later."""

    ask: Callable[[], str | None] = field(repr=False)
    _answer: bytes | None = field(default=None, init=False, repr=False)

    def __call__(self) -> bytes:
        """Ask for the PIN, or return the one given before."""
        if self._answer is None:
            typed = self.ask()
            if typed is None:
                raise PinUnavailable(
                    "The PIN is to be asked for, and there is no terminal; use a file or a systemd "
                    "credential instead."
                )
            self._answer = _checked(typed.encode("utf-8"), "The PIN that was typed")
        return self._answer


def generate() -> bytes:
    """Make a PIN of 24 characters, 120 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_CHARACTERS)).encode("ascii")


def write_new(path: Path, pin: bytes) -> None:
    """Keep a PIN in a new file that only its owner may read, durably; an existing one is left as it
    is. Raises `FileUnusable`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise FileUnusable(f"{path} exists already; no PIN is written over it.") from error
    except OSError as error:
        raise FileUnusable(f"{path} cannot be made: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pin + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise FileUnusable(f"{path} cannot be written: {error.strerror}.") from error


def sync_folder(folder: Path) -> None:
    """Make a new or renamed entry of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, *, owner_only: bool) -> bytes:
    try:
        # Not blocking: a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            _check(path, os.fstat(descriptor), owner_only=owner_only)
            content = file.read(_READ_BYTES + 1)
    except OSError as error:
        raise PinUnavailable(f"The PIN file {path} cannot be read: {error.strerror}.") from error
    if content is None or len(content) > _READ_BYTES:
        raise PinUnavailable(f"The PIN file {path} is too long to hold a PIN alone.")
    return _checked(content.removesuffix(b"\n").removesuffix(b"\r"), f"The PIN file {path}")


def _check(path: Path, found: os.stat_result, *, owner_only: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise PinUnavailable(f"The PIN file {path} is not a regular file.")
    if not owner_only:
        return
    if found.st_mode & 0o077:
        raise InsecurePermissions(
            f"The PIN file {path} is open to other users; run: chmod 600 {path}"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise InsecurePermissions(
            f"The PIN file {path} belongs to another user, who can change it; run: "
            f"chown {os.geteuid()} {path}"
        )


def _checked(pin: bytes, what: str) -> bytes:
    if not pin:
        raise PinUnavailable(f"{what} is empty.")
    if b"\0" in pin or b"\n" in pin:
        raise PinUnavailable(f"{what} holds more than a PIN: one line, no zero bytes.")
    try:
        pin.decode("utf-8")
    except UnicodeDecodeError:
        # Without its cause, which holds the bytes.
        raise PinUnavailable(f"{what} is not UTF-8, which PKCS#11 requires.") from None
    return pin
