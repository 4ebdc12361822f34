"""The wrapped key: a session key under one version of a `wrap` key. docs/format.md section 4.

    wrapped = KW || tag
    tag     = HMAC-SHA-256(version's HMAC key, binding)

The keys are on the token, so neither KW nor the tag is made here. Whoever opens a wrapped key MUST
verify the tag over `binding` before unwrapping KW, and MUST let every failure look the same.
"""

from typing import Final

from keycustody.errors import InvalidRequest, WrappedKeyRejected
from keycustody.formats.names import check_key_name, check_version
from keycustody.formats.suites import HASH_BYTES, KW_BYTES, TAG_BYTES, WRAPPED_BYTES, check_suite

_LABEL: Final = b"keycustody.wrapped-key.v1\0"


def binding(suite: int, name: str, version: int, context_hash: bytes, kw: bytes) -> bytes:
    """What the tag is computed over: KW and all that it is bound to.

    `context_hash` is `context.digest`, 32 bytes; `kw` is 40 bytes. Raises `InvalidRequest`.
    """
    check_suite(suite)
    if len(kw) != KW_BYTES:
        raise InvalidRequest(f"KW is {KW_BYTES} bytes, not {len(kw)}.")
    return _LABEL + suite.to_bytes(2) + owner(name, version, context_hash) + kw


def owner(name: str, version: int, context_hash: bytes) -> bytes:
    """`lp16(key name) || u32(key version) || context_hash`, as every binding holds it.

    The size of each part is checked, so that two different inputs never give the same bytes.
    Raises `InvalidRequest`.
    """
    check_key_name(name)
    check_version(version)
    if len(context_hash) != HASH_BYTES:
        raise InvalidRequest(f"A context hash is {HASH_BYTES} bytes, not {len(context_hash)}.")
    text = name.encode("ascii")
    return len(text).to_bytes(2) + text + version.to_bytes(4) + context_hash


def split(wrapped: bytes) -> tuple[bytes, bytes]:
    """KW (40 bytes) and tag (32 bytes). Raises `WrappedKeyRejected` if there are not 72 bytes."""
    if len(wrapped) != WRAPPED_BYTES:
        raise WrappedKeyRejected("The wrapped key was not made by this key for this context.")
    return wrapped[:KW_BYTES], wrapped[KW_BYTES:]


def join(kw: bytes, tag: bytes) -> bytes:
    """The wrapped key of KW (40 bytes) and tag (32 bytes). Raises `InvalidRequest`."""
    if len(kw) != KW_BYTES or len(tag) != TAG_BYTES:
        raise InvalidRequest(f"KW is {KW_BYTES} bytes and its tag {TAG_BYTES}.")
    return kw + tag
