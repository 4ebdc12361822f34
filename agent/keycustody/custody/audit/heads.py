"""Signs the journal's head: a note by the token's audit key, chained as a record and kept beside.

A head is due after `head_records` records, or `head_seconds` after the first one that no head
covers; after a file was begun; and when the agent or a command ends. A token that is away, or a
disk that is full, only delays it: that is logged once, shown in the status, and tried again.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keycustody.config import AuditSettings
from keycustody.custody.audit.drafting import draft
from keycustody.custody.audit.files import HEAD_NAME, last_lines, sync_folder
from keycustody.custody.audit.journal import Journal
from keycustody.custody.clock import read_stamp, stamp
from keycustody.custody.keys.key import Version
from keycustody.errors import (
    AuditChainBroken,
    InvalidSignature,
    KeycustodyError,
    TokenUnavailable,
)
from keycustody.formats import audit_head, signed_note
from keycustody.formats.audit import Head, decode
from keycustody.formats.audit_head import HEAD, is_head
from keycustody.formats.signed_note import VerifierKey
from keycustody.token.api import Fault, Sign, Token

#: Seconds that one signature may take. A verifier remembers as many lines as are written meanwhile.
_TIMEOUT = 10.0
#: Seconds after which a head that could not be signed is tried again.
_PATIENCE = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the heads are: the last record that one covers, how many came since, how many seconds
    ago the first of them, and how many seconds ago the newest head was signed."""

    covered: int
    unsigned: int
    seconds: float
    age: float


class Heads:
    """Signs heads of one journal. `key` returns the version to sign with, or None."""

    def __init__(
        self, journal: Journal, token: Token, key: Callable[[], Version | None], due: AuditSettings
    ) -> None:
        self._journal = journal
        self._token = token
        self._key = key
        self._due = due
        #: The last record that a head covers, and when that was signed.
        self._covered, self._signed = _kept(journal.folder, journal.head)
        #: The sequence number of the newest head record: no head needs to cover that.
        self._record = _newest_head(journal)
        self._since: float | None = None
        self._since = time.monotonic() if self.standing().unsigned else None
        self._rotations = journal.rotations
        self._wake = asyncio.Event()
        self._failed = ""
        journal.on_written = self._noticed

    def standing(self) -> Standing:
        """Return how far the heads are."""
        unsigned = self._unsigned()
        waited = time.monotonic() - self._since if unsigned and self._since is not None else 0.0
        age = max(0.0, self._journal.clock.now() - self._signed) if self._covered else 0.0
        return Standing(self._covered, unsigned, waited, age)

    def _unsigned(self) -> int:
        after = self._journal.head.sequence - self._covered
        return after - 1 if self._record > self._covered else after

    def verifier_key(self) -> str:
        """Return what verifies the heads, as a line; empty if the token has no audit key."""
        version = self._key()
        return "" if version is None else verifier_of(version).encode()

    @property
    def able(self) -> bool:
        """Is there a key to sign with, and did it the last time?"""
        return not self._failed and self._key() is not None

    def findings(self) -> Iterator[str]:
        """Say so, if heads cannot be signed."""
        if self._failed:
            standing = self.standing()
            yield (
                f"Audit heads cannot be signed, {standing.unsigned} records wait for it: "
                f"{self._failed}"
            )

    async def run(self) -> None:
        """Sign whenever it is due, until cancelled."""
        while True:
            # Not wait_for: before Python 3.12 it may lose a cancellation that comes with its event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            self._wake.clear()
            if self._is_due() and not await self.sign():
                await asyncio.sleep(_PATIENCE)

    async def sign(self) -> bool:
        """Sign the head now, unless nothing came since the last; returns whether all is covered."""
        version = self._key()
        if version is None or not self.standing().unsigned:
            return version is not None
        rotations = self._journal.rotations
        head = self._journal.head
        try:
            note = await self._note(version, head)
            await self._journal.append(
                draft(
                    request=secrets.token_hex(16),
                    principal="agent",
                    via="agent",
                    operation=HEAD,
                    rules="",
                    detail=note,
                )
            )
            # What was written while the token signed waits for the next head.
            self._covered, self._record = head.sequence, self._journal.head.sequence
            self._signed = self._journal.clock.now()
            self._since = time.monotonic() if self.standing().unsigned else None
            self._rotations = rotations
            await asyncio.to_thread(_keep, self._journal.folder, note)
        except (KeycustodyError, OSError) as error:
            reason = error.message if isinstance(error, KeycustodyError) else str(error)
            if not self._failed:
                with contextlib.suppress(OSError):
                    _log.warning("audit.head_not_signed", reason=reason)
            self._failed = reason
            return False
        self._failed = ""
        return True

    async def _note(self, version: Version, head: Head) -> str:
        text = audit_head.encode(head, stamp(self._journal.clock.now()))
        key = verifier_of(version)
        ed25519 = version.ref.algorithm == "ED25519"
        data = text.encode() if ed25519 else hashlib.sha256(text.encode()).digest()
        request = Sign(version.ref, "ED25519" if ed25519 else "ECDSA_SHA_256", [data])
        (signature,) = (await self._token.call(request, timeout=_TIMEOUT)).items
        if isinstance(signature, Fault):
            raise TokenUnavailable(signature.message)
        if not ed25519:
            half = len(signature) // 2
            signature = encode_dss_signature(
                int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            )
        if not key.verifies(signature, text.encode()):
            raise TokenUnavailable("The token signed the audit head wrongly.")
        return signed_note.join(text, key, signature)

    def _noticed(self) -> None:
        unsigned = self._unsigned()
        if self._since is None and unsigned:
            self._since = time.monotonic()
        rotated = self._journal.rotations != self._rotations
        if rotated or unsigned >= self._due.head_records:
            self._wake.set()

    def _is_due(self) -> bool:
        standing = self.standing()
        return standing.unsigned > 0 and (
            standing.unsigned >= self._due.head_records
            or standing.seconds >= self._due.head_seconds
            or self._journal.rotations != self._rotations
        )

    def _pause(self) -> float:
        standing = self.standing()
        if not standing.unsigned:
            return self._due.head_seconds
        return max(0.05, self._due.head_seconds - standing.seconds)


def verifier_of(version: Version) -> VerifierKey:
    """Return what verifies notes of that version of the audit key."""
    return VerifierKey.of(audit_head.KEY_NAME, version.public_key)


def _kept(folder: Path, head: Head) -> tuple[int, float]:
    """Return how far the head that is kept beside the journal covers it, and its time; 0 if none
    fits."""
    try:
        note = (folder / HEAD_NAME).read_text(encoding="utf-8")
        kept, time_signed = audit_head.decode(signed_note.text_of(note))
        signed = read_stamp(time_signed)
    except (OSError, ValueError, InvalidSignature, AuditChainBroken):
        return 0, 0.0
    return (kept.sequence, signed) if kept.sequence <= head.sequence else (0, 0.0)


def _newest_head(journal: Journal) -> int:
    """Return the sequence number of the newest record if that is a head, else 0."""
    last = last_lines(journal.path, 1)
    record = decode(last[0]) if last else None
    return record.seq if record is not None and is_head(record) else 0


def _keep(folder: Path, note: str) -> None:
    new = folder / f"{HEAD_NAME}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(note.encode())
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(folder / HEAD_NAME)
    sync_folder(folder)
