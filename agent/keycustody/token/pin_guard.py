"""The PIN guard: no sequence of restarts, workers or agents tries a wrong PIN twice.

Tokens lock after a few wrong PINs, and a supervisor that restarts is a machine for trying. So
(docs/adr/0013):

* One login at a time among all who share the state folder, under a lock file.
* A durable mark is written *before* `C_Login` and cleared by success. Whatever ends a login in
  another way (a refusal, a crash, a power cut) leaves the PIN marked as tried.
* A PIN that is marked as tried is not tried again. Another PIN is. `clear` forgets all marks.
* A PIN that the token accepted before and has not refused since may have been changed there behind
  our back. If logins with it break off, it is tried again, but not if the token shows that somebody
  tried a wrong PIN since, and only so often in a row: thrice on a token that shows that, else twice
  (docs/adr/0013-pin-guard.md).

The file knows PINs by a fingerprint: 16 bits of scrypt with a random salt. So few, because a stolen
file must not be a way to find out a short PIN; that one in 65,536 corrected PINs is taken for its
predecessor costs an operator one `clear`.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from keycustody.errors import FileUnusable, KeycustodyError, PinGuarded, PinIncorrect
from keycustody.token.pin import sync_folder

_FILE = "pin-guard.json"
_LOCK = "pin-guard.lock"
_POLL_SECONDS = 0.02
_FINGERPRINT_BYTES = 2
#: scrypt (RFC 7914) parameters: 16 MiB and some 40 ms, once for each PIN and process.
_N, _R, _P = 2**14, 8, 1

#: Logins in a row that may break off with a PIN that was accepted: where a wrong one shows on the
#: token, the first that gets there is the last; elsewhere fewer than lock any token we know of.
_SHOWN_TRIES, _UNSHOWN_TRIES = 3, 2

_HELD_BACK = (
    "This PIN {what}, and it is not tried again, because tokens lock after a few wrong ones. Put "
    "the right PIN where the settings say, or, if this is the right one, run `keycustody token "
    "clear-pin-guard`."
)


class _Marks(msgspec.Struct):
    """What is known of the PINs of one token."""

    pending: str = ""
    accepted: str = ""
    refused: list[str] = []
    #: Logins with the accepted PIN that broke off since it was accepted, and how many may.
    broken: int = 0
    limit: int = 0

    @property
    def used_up(self) -> bool:
        return 0 < self.limit <= self.broken


class _File(msgspec.Struct, forbid_unknown_fields=True):
    v: Literal[1]
    salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    tokens: dict[str, _Marks]


@dataclass(slots=True)
class Attempt:
    """One login. `again`: the last one with this PIN, which was accepted before, broke off, so that
    the token is to be asked first whether it was wrong. `counts`, for whoever logs in to say: was
    it broken off in a way that may not happen again and again?"""

    again: bool
    counts: bool = True


class PinGuard:
    """The guard of one state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: By a keyed hash of the PIN, so that no PIN stays in memory for this.
        self._fingerprints: dict[tuple[str, bytes], str] = {}
        self._key = secrets.token_bytes(32)

    @contextlib.asynccontextmanager
    async def attempt(
        self, serial: str, pin: bytes, *, shown: bool = False
    ) -> AsyncIterator[Attempt]:
        """Log in inside this block, and nowhere else. The block leaves by `PinIncorrect` if the
        token refused the PIN, by `PinGuarded` if it shows that it would, and normally only if it
        accepted it. `shown`: the token tells when a wrong PIN was tried.

        Raises `PinGuarded` instead of entering it, and `FileUnusable`, also when leaving.
        """
        async with self._locked():
            # Files are small and rarely written; scrypt is what must not hold up the loop.
            known = self._read()
            mark = await asyncio.to_thread(self._fingerprint, known.salt, pin)
            marks = known.tokens.setdefault(serial, _Marks())
            self._admit(marks, mark)
            marks.pending = mark
            was_accepted, before = mark == marks.accepted, marks.broken
            if was_accepted:
                marks.broken += 1
                marks.limit = _SHOWN_TRIES if shown else _UNSHOWN_TRIES
            await asyncio.to_thread(self._write, known)
            attempt = Attempt(again=was_accepted and before > 0)
            try:
                yield attempt
            except (PinIncorrect, PinGuarded):
                marks.pending = ""
                if was_accepted:
                    marks.accepted, marks.broken = "", 0
                marks.refused.append(mark)
                self._write(known)
                raise
            except KeycustodyError:
                if was_accepted and not attempt.counts:
                    marks.broken = max(before, 1)  # the token is asked all the same
                    self._write(known)
                raise
            marks.pending = ""
            marks.accepted, marks.broken = mark, 0
            # The token's PIN was changed back: what it accepts was not refused for good.
            marks.refused = [other for other in marks.refused if other != mark]
            await asyncio.to_thread(self._write, known)

    def clear(self) -> bool:
        """Forget every try. Returns whether a PIN was being held back.

        Waits for a login that is going on. Raises `FileUnusable`.
        """
        with self._opened_lock() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self._folder / _FILE
            try:
                held = any(
                    marks.refused or marks.used_up or marks.pending not in ("", marks.accepted)
                    for marks in self._read().tokens.values()
                )
            except PinGuarded:
                held = True  # unreadable: whatever it said is forgotten now
            try:
                path.unlink(missing_ok=True)
                sync_folder(self._folder)
            except OSError as error:
                raise FileUnusable(f"{path} cannot be removed: {error.strerror}.") from error
            return held

    @staticmethod
    def _admit(marks: _Marks, mark: str) -> None:
        what = "was refused"
        if marks.used_up:
            if mark == marks.accepted:
                what = f"was being tried when {marks.broken} logins in a row broke off"
            marks.refused.append(marks.accepted)
            marks.accepted, marks.broken = "", 0
        elif marks.pending and marks.pending != marks.accepted:
            # Somebody died, or the token failed, between this mark and an answer: it was a try.
            marks.refused.append(marks.pending)
            if mark == marks.pending:
                what = "was being tried when the login broke off"
        if mark in marks.refused:
            raise PinGuarded(_HELD_BACK.format(what=what))

    def _fingerprint(self, salt: str, pin: bytes) -> str:
        which = salt, hmac.digest(self._key, pin, "sha256")
        known = self._fingerprints.get(which)
        if known is None:
            long = hashlib.scrypt(pin, salt=bytes.fromhex(salt), n=_N, r=_R, p=_P, dklen=32)
            known = self._fingerprints[which] = long[:_FINGERPRINT_BYTES].hex()
        return known

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        with self._opened_lock() as lock:
            # Asking again rather than waiting in a thread: this can be cancelled.
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_POLL_SECONDS)
            yield

    @contextlib.contextmanager
    def _opened_lock(self) -> Iterator[int]:
        path = self._folder / _LOCK
        try:
            # A new open file each time: that is what the lock belongs to.
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FileUnusable(f"{path} cannot be opened: {error.strerror}.") from error
        try:
            yield lock
        finally:
            os.close(lock)

    def _read(self) -> _File:
        path = self._folder / _FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=_File)
        except FileNotFoundError:
            return _File(1, secrets.token_hex(16), {})
        except OSError as error:
            raise FileUnusable(f"{path} cannot be read: {error.strerror}.") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise PinGuarded(
                f"{path} is damaged, so it is not known which PINs were refused. Check the PIN, "
                "then run `keycustody token clear-pin-guard`."
            ) from error

    def _write(self, known: _File) -> None:
        path = self._folder / _FILE
        temporary = path.with_suffix(".new")
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(known))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(self._folder)
        except OSError as error:
            raise FileUnusable(f"{path} cannot be written: {error.strerror}.") from error
