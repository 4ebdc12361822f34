"""The context: string pairs, not secret, that a session key is bound to. docs/format.md section 2.

    context = u16(number of pairs) || for each pair: lp16(key) || lp16(value)

Pairs are sorted by the bytes of the key, keys are unique, text is UTF-8 as given: nothing is
normalised. So a mapping has one encoding, and `decode` accepts no other.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from keycustody.errors import InvalidContext, MalformedEnvelope

MAX_PAIRS: Final = 64
MAX_KEY_BYTES: Final = 128
MAX_VALUE_BYTES: Final = 1024
MAX_ENCODED_BYTES: Final = 8192
#: The encoding of no pairs at all.
EMPTY: Final = b"\0\0"

_LABEL: Final = b"keycustody.context.v1\0"


def encode(context: Mapping[str, str]) -> bytes:
    """The one encoding of `context`; at most 8,192 bytes.

    Raises `InvalidContext` for more than 64 pairs, a key that is empty or over 128 bytes of UTF-8,
    a value over 1,024, anything that is not text, U+0000, lone surrogates, or a total that is too
    long.
    """
    if not isinstance(context, Mapping):
        raise InvalidContext(f"A context is a mapping of text, not {type(context).__name__}.")
    if len(context) > MAX_PAIRS:
        raise InvalidContext(f"A context has at most {MAX_PAIRS} pairs; this has {len(context)}.")
    # Through a dict, because a mapping of another kind may repeat a key in items().
    items = tuple(dict(context.items()).items())
    try:
        return _encoded(items)
    except TypeError:  # what has no hash is no text
        return _encoded.__wrapped__(items)


@lru_cache(maxsize=256)  # 2 MiB at most; a client has few contexts, and many messages of each
def _encoded(items: tuple[tuple[str, str], ...]) -> bytes:
    pairs = sorted(_pair(key, value) for key, value in items)
    encoded = len(pairs).to_bytes(2) + b"".join(
        len(text).to_bytes(2) + text for pair in pairs for text in pair
    )
    if len(encoded) > MAX_ENCODED_BYTES:
        raise InvalidContext(
            f"An encoded context is at most {MAX_ENCODED_BYTES} bytes; this is {len(encoded)}."
        )
    return encoded


def decode(data: bytes) -> dict[str, str]:
    """The pairs of an encoded context, in its order.

    Raises `MalformedEnvelope` for whatever `encode` would not have made, trailing bytes included.
    """
    if not 2 <= len(data) <= MAX_ENCODED_BYTES:
        raise _malformed("its length is out of range")
    count = int.from_bytes(data[:2])
    if count > MAX_PAIRS:
        raise _malformed(f"it has more than {MAX_PAIRS} pairs")
    pairs: dict[str, str] = {}
    offset, previous = 2, b""
    for _ in range(count):
        key, offset = _lp16(data, offset, MAX_KEY_BYTES)
        value, offset = _lp16(data, offset, MAX_VALUE_BYTES)
        # `previous` starts empty, so this refuses an empty first key as well.
        if key <= previous:
            raise _malformed("its keys are empty, repeated or not sorted")
        previous = key
        pairs[_text(key)] = _text(value)
    if offset != len(data):
        raise _malformed("bytes follow its last pair")
    return pairs


def digest(encoded: bytes) -> bytes:
    """`context_hash`: SHA-256, 32 bytes, of an encoded context under its own label."""
    return hashlib.sha256(_LABEL + encoded).digest()


def _pair(key: object, value: object) -> tuple[bytes, bytes]:
    if not isinstance(key, str):
        raise InvalidContext(f"A context key is text, not {type(key).__name__}.")
    if not isinstance(value, str):
        raise InvalidContext(
            f"The value of context key {key[:MAX_KEY_BYTES]!r} is not text but "
            f"{type(value).__name__}."
        )
    if not key:
        raise InvalidContext("A context key is empty; it has 1 to 128 bytes.")
    return (
        _utf8(key, "A context key", MAX_KEY_BYTES),
        _utf8(value, f"The value of context key {key[:MAX_KEY_BYTES]!r}", MAX_VALUE_BYTES),
    )


def _utf8(text: str, what: str, limit: int) -> bytes:
    if "\0" in text:
        raise InvalidContext(f"{what} holds U+0000, which no context may.")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidContext(f"{what} holds a lone surrogate, which UTF-8 cannot carry.") from error
    if len(encoded) > limit:
        raise InvalidContext(f"{what} is {len(encoded)} bytes of UTF-8; at most {limit} may be.")
    return encoded


def _lp16(data: bytes, offset: int, limit: int) -> tuple[bytes, int]:
    start = offset + 2
    # A length field cut off at the end reads as a shorter number; the check below refuses it, as
    # `start` is then already beyond the end.
    end = start + int.from_bytes(data[offset:start])
    if end - start > limit:
        raise _malformed("a key or a value is too long")
    if end > len(data):
        raise _malformed("it ends inside a pair")
    return data[start:end], end


def _text(data: bytes) -> str:
    if b"\0" in data:
        raise _malformed("it holds U+0000")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _malformed("it is not UTF-8") from error


def _malformed(why: str) -> MalformedEnvelope:
    return MalformedEnvelope(f"The encoded context is not valid: {why}.")
