"""Which token may deliver session keys: known by its delivery key, given or remembered.

The agent chooses the delivery point of each answer (docs/format.md, 5). A client that knows which
one is right refuses a token that was swapped, and an agent that puts its own key in the place of
the token's. Both kinds answer `TokenNotTrusted` for any other.

A fingerprint is the SHA-256 of the key's SubjectPublicKeyInfo (RFC 5280, DER), 64 hex digits.

The file of `Remembered` has one line for each remembered key: fingerprint, a space, and the agent's
target with percent signs for what is not printable. Lines are only appended, one write each, under
flock(2). A last line without its end counts if it has both parts; else it was cut short by a crash
and counts for nothing. To replace a token on purpose, add a line for the new one; to forget one,
delete its line.
"""

import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keycustody.errors import FileUnusable, InsecurePermissions, InvalidRequest, TokenNotTrusted
from keycustody.formats.suites import POINT_BYTES

#: DER of a P-256 SubjectPublicKeyInfo up to the uncompressed point (RFC 5480, 2).
_SPKI: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_HEX: Final = re.compile("[0-9a-f]{64}")
#: What a crash leaves of a line; with some of its target, it may be whole.
_CUT_SHORT: Final = re.compile(rb"[0-9a-f]{0,64}|[0-9a-f]{64} ")
#: A file of that many bytes is no list of tokens.
_MAX_FILE_BYTES: Final = 1024 * 1024


class KnownToken(Protocol):
    """Says which delivery points are right."""

    def check(self, point: bytes) -> None:
        """Raise `TokenNotTrusted` for a point that is known not to be right."""
        ...

    def accept(self, point: bytes) -> None:
        """Something was delivered from this point, and opened. Raises as `check` does."""
        ...


@dataclass(frozen=True, slots=True)
class Remembered:
    """Trust the token that delivers first, write its delivery key down in `path`, and refuse any
    other from then on. The file is for its owner alone; processes may share it."""

    path: "str | os.PathLike[str]"


#: One delivery key: its fingerprint in hex, its 65-byte point, its SubjectPublicKeyInfo (DER), or
#: a pyca key.
DeliveryKey: TypeAlias = str | bytes | ec.EllipticCurvePublicKey
#: One or several of them, any of which may deliver; or what is remembered.
Trust: TypeAlias = DeliveryKey | Iterable[DeliveryKey] | Remembered


def fingerprint(point: bytes) -> str:
    """The fingerprint of a delivery point, 64 hex digits."""
    return hashlib.sha256(_SPKI + point).hexdigest()


def known_token(given: Trust, target: str) -> KnownToken:
    """What `connect` was given, for the agent at `target`. Raises `InvalidRequest`."""
    if isinstance(given, Remembered):
        return Memory(Path(given.path).absolute(), target)
    if isinstance(given, str | bytes | ec.EllipticCurvePublicKey):
        given = (given,)
    pins = frozenset(_fingerprint_of(key) for key in given)
    if not pins:
        raise InvalidRequest("Give at least one delivery key, or none at all by leaving it out.")
    return Pinned(pins)


@dataclass(frozen=True, slots=True)
class Pinned:
    """Known beforehand."""

    fingerprints: frozenset[str]

    def check(self, point: bytes) -> None:
        """Raise `TokenNotTrusted` unless the point is one of those given."""
        found = fingerprint(point)
        if found not in self.fingerprints:
            known = " or ".join(sorted(self.fingerprints))
            raise TokenNotTrusted(
                f"The session key was delivered by the token with delivery key {found}, "
                f"and {known} is what was given; if the token was replaced on purpose, give its "
                "new one."
            )

    accept = check


class Memory:
    """Known from a file. Thread-safe: what is kept is only ever added to."""

    def __init__(self, path: Path, target: str) -> None:
        self._path = path
        self._target = quote(target)
        self._good: frozenset[str] = frozenset()

    def check(self, point: bytes) -> None:
        """Raise `TokenNotTrusted` if other keys are remembered. Raises `FileUnusable` and
        `InsecurePermissions` for what the file is."""
        found = fingerprint(point)
        if found in self._good:
            return
        try:
            with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as file:
                known = self._known(_lines(_content(file))[0])
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable("read", error) from error
        if known:
            self._judge(found, known)

    def accept(self, point: bytes) -> None:
        """Remember the point if none is; raises as `check` does."""
        found = fingerprint(point)
        if found in self._good:
            return
        try:
            with self._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as file:
                lines, whole = _lines(_content(file))
                # Another process may have been first.
                known = self._known(lines)
                if not known:
                    _append(file, f"{found} {self._target}\n".encode("ascii"), whole)
        except OSError as error:
            raise self._unusable("write", error) from error
        self._judge(found, known or frozenset({found}))

    def _judge(self, found: str, known: frozenset[str]) -> None:
        if found not in known:
            raise TokenNotTrusted(
                f"The session key was delivered by the token with delivery key {found}, and "
                f"{self._path} remembers {' or '.join(sorted(known))} for this agent; if the token "
                "was replaced on purpose, add the new one there."
            )
        self._good = known

    def _known(self, lines: list[str]) -> frozenset[str]:
        known = set()
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            key, _, target = line.partition(" ")
            if not _HEX.fullmatch(key) or not target:
                raise FileUnusable(
                    f"Line {number} of {self._path} is not a fingerprint of 64 hex digits, a space "
                    "and an agent's target; correct or delete it."
                )
            if target == self._target:
                known.add(key)
        return frozenset(known)

    @contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[int]:
        file = os.open(self._path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
                raise FileUnusable(f"{self._path} is not a list of known tokens.")
            if status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0):
                raise InsecurePermissions(
                    f"{self._path} says which tokens are trusted, and others may write it; "
                    "it must be its user's own, with mode 0600."
                )
            fcntl.flock(file, lock)
            yield file
        finally:
            os.close(file)

    def _unusable(self, verb: str, error: OSError) -> FileUnusable:
        return FileUnusable(f"Cannot {verb} the known tokens {self._path}: {error.strerror}.")


def _fingerprint_of(key: DeliveryKey) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        key = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if isinstance(key, bytes):
        point = key.removeprefix(_SPKI)
        if len(point) == POINT_BYTES:
            return fingerprint(point)
    elif isinstance(key, str):
        text = key.strip().lower().removeprefix("sha256:").replace(":", "")
        if _HEX.fullmatch(text):
            return text
    raise InvalidRequest(
        "A delivery key is given as its SHA-256 fingerprint in hex, as `keycustody status` shows "
        "it, or as its P-256 point or SubjectPublicKeyInfo."
    )


def _content(file: int) -> bytes:
    return os.pread(file, _MAX_FILE_BYTES, 0)


def _lines(content: bytes) -> tuple[list[str], int]:
    """Return the lines that count, and where the last of them ends."""
    whole = content.rfind(b"\n") + 1
    if not _CUT_SHORT.fullmatch(content, whole):
        whole = len(content)  # somebody wrote it by hand, and it counts
    # Latin-1 decodes any bytes; what is not hex and a quoted target is refused later.
    return content[:whole].decode("latin-1").splitlines(), whole


def _append(file: int, line: bytes, whole: int) -> None:
    """Write a line after `whole` bytes, all of it or nothing."""
    if whole and os.pread(file, 1, whole - 1) != b"\n":
        line = b"\n" + line
    os.ftruncate(file, whole)
    if os.pwrite(file, line, whole) != len(line):
        os.ftruncate(file, whole)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file)
