"""The suites of docs/format.md section 3: which sizes and algorithms a suite number stands for.

A suite is never changed, only added. Sizes are in bytes.
"""

from typing import Final

from keycustody.errors import InvalidRequest

#: AES-256 key wrap and HMAC-SHA-256; P-256 ECDH for delivery; Cobblestone-256 for the body.
SUITE_1: Final = 1
KNOWN_SUITES: Final = frozenset({SUITE_1})

SESSION_KEY_BYTES: Final = 32
#: RFC 3394 adds one 8-byte block to what it wraps.
KW_BYTES: Final = SESSION_KEY_BYTES + 8
#: HMAC-SHA-256, not truncated.
TAG_BYTES: Final = 32
WRAPPED_BYTES: Final = KW_BYTES + TAG_BYTES
#: A sealed session key is an RFC 3394 wrap too.
SEALED_BYTES: Final = SESSION_KEY_BYTES + 8
#: An uncompressed P-256 point, SEC 1 section 2.3.3.
POINT_BYTES: Final = 65
#: SHA-256: context hashes, and the binding of a delivery.
HASH_BYTES: Final = 32


def check_suite(suite: int) -> None:
    """Raise `InvalidRequest` unless this release knows the suite."""
    if suite not in KNOWN_SUITES:
        raise InvalidRequest(f"Suite {suite!r} is not known to this release; it knows suite 1.")
