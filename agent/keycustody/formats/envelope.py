"""The envelope's header, and what binds its body to it. docs/format.md section 6.

    envelope = fixed || slot || body
    fixed    = "KCUSTODY" || u8(1) || u16(suite) || lp16(key name) || lp16(context)
    slot     = u32(key version) || lp16(wrapped key)

`fixed` is bound into the body through `body_context`. `slot` is not, so that a rewrap may replace
it: in place, since in suite 1 every slot is 78 bytes and starts at `len(header.fixed)`.

**A header is a claim.** Call `require_key` and `require_context` before asking for an unwrap. The
body is `cryptography.cobblestone`'s; it is not touched here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final

from keycustody.errors import (
    InvalidRequest,
    MalformedEnvelope,
    TruncatedEnvelope,
    UnexpectedContext,
    UnexpectedKey,
)
from keycustody.formats import context as contexts
from keycustody.formats.names import KEY_NAME_MAX_BYTES, check_key_name, check_version
from keycustody.formats.suites import SUITE_1, WRAPPED_BYTES, check_suite

MAGIC: Final = b"KCUSTODY"
FORMAT: Final = 1
SLOT_BYTES: Final = 4 + 2 + WRAPPED_BYTES
#: A first read of this many bytes always holds the whole header.
MAX_HEADER_BYTES: Final = (
    len(MAGIC) + 1 + 2 + 2 + KEY_NAME_MAX_BYTES + 2 + contexts.MAX_ENCODED_BYTES + SLOT_BYTES
)
#: Salt and commitment before the body's chunks, and the tag of the last, perhaps empty, chunk.
MIN_BODY_BYTES: Final = 24 + 32 + 16

_LABEL: Final = b"keycustody.envelope.v1\0"
_OF_NOTHING: Final = hashlib.sha256().digest()


@dataclass(frozen=True)
class Header:
    """A valid header. `encoded_context` is the encoding of `keycustody.formats.context`.

    Raises `InvalidRequest` for a suite, name, version or wrapped-key length that is not valid, and
    `MalformedEnvelope` for an encoded context that is not. Derived bytes are computed once, so a
    session that keeps its header pays for none of them again.
    """

    suite: int
    key: str
    encoded_context: bytes
    version: int
    wrapped_key: bytes

    def __post_init__(self) -> None:
        check_suite(self.suite)
        check_key_name(self.key)
        check_version(self.version)
        if len(self.wrapped_key) != WRAPPED_BYTES:
            raise InvalidRequest(
                f"A wrapped key is {WRAPPED_BYTES} bytes, not {len(self.wrapped_key)}."
            )
        _ = self.context

    @classmethod
    def of(
        cls,
        key: str,
        context: Mapping[str, str],
        version: int,
        wrapped_key: bytes,
        *,
        suite: int = SUITE_1,
    ) -> "Header":
        """The header for a context that is not encoded yet. Raises `InvalidContext` as well."""
        return cls(suite, key, contexts.encode(context), version, wrapped_key)

    @cached_property
    def context(self) -> Mapping[str, str]:
        """The context's pairs, read-only."""
        return MappingProxyType(contexts.decode(self.encoded_context))

    @cached_property
    def context_hash(self) -> bytes:
        """`context_hash` of section 2, 32 bytes."""
        return contexts.digest(self.encoded_context)

    @cached_property
    def fixed(self) -> bytes:
        """The part that is bound into the body."""
        name = self.key.encode("ascii")
        return b"".join(
            (
                MAGIC,
                FORMAT.to_bytes(1),
                self.suite.to_bytes(2),
                len(name).to_bytes(2),
                name,
                len(self.encoded_context).to_bytes(2),
                self.encoded_context,
            )
        )

    @cached_property
    def slot(self) -> bytes:
        """The part that a rewrap replaces, 78 bytes."""
        return b"".join(
            (self.version.to_bytes(4), len(self.wrapped_key).to_bytes(2), self.wrapped_key)
        )

    @cached_property
    def body_prefix(self) -> bytes:
        """The body context up to the hash of the associated data: the same for every message."""
        return _LABEL + hashlib.sha256(self.fixed).digest()

    def encode(self) -> bytes:
        """The header's bytes."""
        return self.fixed + self.slot

    def with_slot(self, version: int, wrapped_key: bytes) -> "Header":
        """The same header after a rewrap; `fixed` and the body stay as they are."""
        return replace(self, version=version, wrapped_key=wrapped_key)

    def require_key(self, key: str) -> None:
        """Raise `UnexpectedKey` unless the header names this key."""
        if self.key != key:
            raise UnexpectedKey(
                f"The envelope names key {self.key!r}, and {key!r} is what is required."
            )

    def require_context(self, encoded_context: bytes) -> None:
        """Raise `UnexpectedContext` unless the header carries exactly this encoded context."""
        if self.encoded_context != encoded_context:
            raise UnexpectedContext(
                f"The envelope's context is {_shown(self.encoded_context)}, and "
                f"{_shown(encoded_context)} is what is required."
            )


def _shown(encoded_context: bytes) -> str:
    """A context in a sentence: it is no secret, and may be long."""
    pairs = ", ".join(f"{key}={value}" for key, value in contexts.decode(encoded_context).items())
    return "empty" if not pairs else pairs if len(pairs) <= 200 else f"{pairs[:200]}..."


def parse(data: bytes | bytearray | memoryview) -> tuple[Header, int]:
    """The header at the start of `data`, and its length: the body starts there.

    Raises `TruncatedEnvelope` if `data` may be the start of an envelope but ends inside the header:
    the caller reads on and tries again with all bytes so far, at most `MAX_HEADER_BYTES`. Raises
    `MalformedEnvelope` as soon as it is certain that no further bytes could help: the magic is
    compared byte by byte, every other field once it is complete, a length before what it measures.

    Costs about 10 us. Whoever reads many envelopes of one session can do without: the next one has
    the same header if it starts with `header.encode()`.
    """
    reader = _Reader(bytes(data[:MAX_HEADER_BYTES]))
    reader.magic()
    if reader.number(1) != FORMAT:
        raise MalformedEnvelope("The envelope's format version is not known to this release.")
    suite = reader.number(2)
    try:
        check_suite(suite)
        # Latin-1 decodes any byte; the check that follows lets only ASCII through.
        key = reader.block(1, KEY_NAME_MAX_BYTES, "key name").decode("latin-1")
        check_key_name(key)
        encoded_context = reader.block(2, contexts.MAX_ENCODED_BYTES, "context")
        contexts.decode(encoded_context)
        version = reader.number(4)
        check_version(version)
        wrapped_key = reader.block(WRAPPED_BYTES, WRAPPED_BYTES, "wrapped key")
        header = Header(suite, key, encoded_context, version, wrapped_key)
    except InvalidRequest as error:
        raise MalformedEnvelope(f"The envelope's header is not valid: {error}") from error
    return header, reader.offset


def body_context(header: Header, associated_data: bytes | bytearray | memoryview = b"") -> bytes:
    """The Cobblestone-256 context of a body: binds it to `fixed` and to `associated_data`."""
    return header.body_prefix + data_hash(associated_data)


def data_hash(associated_data: bytes | bytearray | memoryview) -> bytes:
    """SHA-256, 32 bytes; mostly of nothing, which is known."""
    return _OF_NOTHING if associated_data == b"" else hashlib.sha256(associated_data).digest()


class _Reader:
    """Takes fields off the front; what is not there yet is `TruncatedEnvelope`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def magic(self) -> None:
        if not MAGIC.startswith(self.data[: len(MAGIC)]):
            raise MalformedEnvelope("This is not an envelope: it does not start with KCUSTODY.")
        self.take(len(MAGIC))

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def block(self, least: int, most: int, what: str) -> bytes:
        length = self.number(2)
        if not least <= length <= most:
            raise MalformedEnvelope(f"The length of the envelope's {what} is out of range.")
        return self.take(length)

    def take(self, size: int) -> bytes:
        end = self.offset + size
        if end > len(self.data):
            raise TruncatedEnvelope("The envelope ends before its header does.")
        field = self.data[self.offset : end]
        self.offset = end
        return field
