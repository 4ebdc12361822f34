"""docs/format.md once more, for making vectors; positive and negative ones alike."""

import hashlib
import hmac
import struct
from typing import Any, Final

from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

Json = dict[str, Any]
Pairs = list[tuple[str, str]]
RawPairs = list[tuple[bytes, bytes]]

CHUNK: Final = 16384 + 16
#: Salt and commitment.
PREAMBLE: Final = 24 + 32
TENANT: Final[Pairs] = [("purpose", "export"), ("tenant", "42")]


def made(label: str) -> bytes:
    """32 bytes that are nobody's secret."""
    return hashlib.sha256(f"keycustody test vectors: {label}".encode()).digest()


def lp16(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def raw_context(pairs: RawPairs, count: int | None = None) -> bytes:
    number = struct.pack(">H", len(pairs) if count is None else count)
    return number + b"".join(lp16(key) + lp16(value) for key, value in pairs)


def encode_context(pairs: Pairs) -> bytes:
    return raw_context(sorted((key.encode(), value.encode()) for key, value in pairs))


def context_hash(encoded: bytes) -> bytes:
    return hashlib.sha256(b"keycustody.context.v1\0" + encoded).digest()


def aes_key(name: str, version: int) -> bytes:
    return made(f"AES key of {name}.v{version}")


def mac_key(name: str, version: int) -> bytes:
    return made(f"HMAC key of {name}.v{version}")


def tag_binding(suite: int, name: bytes, version: int, context: bytes, kw: bytes) -> bytes:
    return (
        b"keycustody.wrapped-key.v1\0"
        + struct.pack(">H", suite)
        + lp16(name)
        + struct.pack(">I", version)
        + context_hash(context)
        + kw
    )


def wrap(session_key: bytes, name: str, version: int, context: bytes, suite: int = 1) -> bytes:
    kw = aes_key_wrap(aes_key(name, version), session_key)
    bound = tag_binding(suite, name.encode(), version, context, kw)
    return kw + hmac.digest(mac_key(name, version), bound, "sha256")


def plaintext(length: int) -> bytes:
    return bytes(index % 251 for index in range(length))


def encrypt(session_key: bytes, fixed: bytes, data: bytes, aad: bytes = b"") -> bytes:
    bound = (
        b"keycustody.envelope.v1\0" + hashlib.sha256(fixed).digest() + hashlib.sha256(aad).digest()
    )
    encryptor = Cobblestone256Encryptor(session_key, bound)
    return encryptor.update(data) + encryptor.finalize()


def flip(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
