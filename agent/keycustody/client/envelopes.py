"""Envelopes in memory: seal one message, open one. No I/O; docs/format.md section 6.

A `Sealer` and an `Opener` are a session key bound to a header. `Expectation` is what a reader
requires of a header, and `Expectation.check` comes before anything is asked of the agent.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from keycustody.client.delivery import SecretKey
from keycustody.errors import DecryptionFailed, InvalidRequest
from keycustody.formats import context as contexts
from keycustody.formats import envelope

Bytes: TypeAlias = bytes | bytearray | memoryview


class Anything(enum.Enum):
    """The type of `ANY`."""

    ANY = "ANY"

    def __repr__(self) -> str:
        return "keycustody.ANY"


#: In place of a key name or a context: whatever the envelope says is accepted.
ANY: Final = Anything.ANY
AnyOr: TypeAlias = Literal[Anything.ANY]

_NOT_AUTHENTIC: Final = (
    "The envelope does not decrypt: its key, context, associated data or bytes are not those it "
    "was made with, or it is not complete."
)


class Body(Protocol):
    """One direction of Cobblestone-256; `DecryptionFailed` is all that it raises about its data."""

    def update_into(self, data: Bytes, out: memoryview) -> int:
        """Process `data` into `out`, which MUST hold `len(data)` and 16 KiB; return the length."""
        ...

    def finalize(self) -> bytes:
        """What is left. Nothing before was complete without it."""
        ...


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a reader requires: a key name or ANY, an encoded context or ANY."""

    key: str | AnyOr
    encoded_context: bytes | AnyOr

    @classmethod
    def of(cls, key: str | AnyOr, context: Mapping[str, str] | AnyOr) -> "Expectation":
        """From what a caller gives. Raises `InvalidContext`, or `InvalidRequest` for no name."""
        if key is not ANY and not isinstance(key, str):
            raise InvalidRequest("Name the key that is required, or say keycustody.ANY.")
        return cls(key, ANY if context is ANY else contexts.encode(context))

    def check(self, header: envelope.Header) -> None:
        """Raise `UnexpectedKey` or `UnexpectedContext` unless the header is as required."""
        if self.key is not ANY:
            header.require_key(self.key)
        if self.encoded_context is not ANY:
            header.require_context(self.encoded_context)


class Sealer:
    """Makes envelopes with one session key. Thread-safe; it counts nothing (see `leases`)."""

    __slots__ = ("_head", "_key", "_prefix", "header")

    def __init__(self, header: envelope.Header, key: SecretKey) -> None:
        self.header = header
        self._head = header.encode()
        self._prefix = header.body_prefix
        self._key = key

    @property
    def head(self) -> bytes:
        """The header's bytes, which come first in each envelope."""
        return self._head

    def seal(self, plaintext: Bytes, associated_data: Bytes) -> bytes:
        """One envelope."""
        body = self._encryptor(associated_data)
        return b"".join((self._head, body.update(plaintext), body.finalize()))

    def body(self, associated_data: Bytes) -> Body:
        """A body to be fed in blocks."""
        return self._encryptor(associated_data)

    def _encryptor(self, associated_data: Bytes) -> Cobblestone256Encryptor:
        bound = self._prefix + envelope.data_hash(associated_data)
        return Cobblestone256Encryptor(self._key.value, bound)


@dataclass(frozen=True, slots=True)
class Opener:
    """Reads envelopes of one header with its session key."""

    header: envelope.Header
    key: SecretKey

    def open(self, body: Bytes, associated_data: Bytes) -> bytes:
        """The plaintext of a whole body. Raises `DecryptionFailed`."""
        decryptor = self._decryptor(associated_data)
        try:
            return decryptor.update(body) + decryptor.finalize()
        except InvalidTag as error:
            raise DecryptionFailed(_NOT_AUTHENTIC) from error

    def body(self, associated_data: Bytes) -> Body:
        """A body to be fed in blocks."""
        return _Decryption(self._decryptor(associated_data))

    def _decryptor(self, associated_data: Bytes) -> Cobblestone256Decryptor:
        bound = envelope.body_context(self.header, associated_data)
        return Cobblestone256Decryptor(self.key.value, bound)


@dataclass(slots=True)
class _Decryption:
    """A decryptor whose failures are ours."""

    decryptor: Cobblestone256Decryptor = field(repr=False)

    def update_into(self, data: Bytes, out: memoryview) -> int:
        try:
            return self.decryptor.update_into(data, out)
        except InvalidTag as error:
            raise DecryptionFailed(_NOT_AUTHENTIC) from error

    def finalize(self) -> bytes:
        try:
            return self.decryptor.finalize()
        except InvalidTag as error:
            raise DecryptionFailed(_NOT_AUTHENTIC) from error
