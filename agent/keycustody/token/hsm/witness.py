"""What a `wrap` version is known by, as other keys are by their public half.

A witness is a wrapped key that the version made when it was new (docs/format.md, 7). Only a version
with the same two keys verifies its tag and opens it; the state record keeps it. It is bound to no
context that a client can name, so that no request opens it.
"""

import hashlib
import hmac

import pkcs11

from keycustody.errors import WrappedKeyRejected
from keycustody.formats import wrapped_key
from keycustody.formats.suites import SUITE_1, WRAPPED_BYTES
from keycustody.token.hsm.failures import BAD_WRAPPING, DOUBTFUL
from keycustody.token.hsm.loaded import LoadedKey
from keycustody.token.hsm.operations import tag
from keycustody.token.hsm.transient import Transient
from keycustody.token.profiles import Profile

#: In place of a context's hash; contexts are hashed under another label.
_CONTEXT_HASH = hashlib.sha256(b"keycustody.witness.v1\0").digest()


def make(key: LoadedKey, session: pkcs11.Session, profile: Profile) -> bytes:
    """Make a witness, 72 bytes."""
    with Transient(session, profile) as transient:
        kw = transient.wrap(key.wrapping, transient.session_key(sensitive=True))
    return wrapped_key.join(kw, tag(key, _bound(key, kw), profile))


def holds(key: LoadedKey, session: pkcs11.Session, profile: Profile) -> bool:
    """Was every witness in the key's reference made by these very keys?"""
    given = key.ref.witness
    each = (given[start : start + WRAPPED_BYTES] for start in range(0, len(given), WRAPPED_BYTES))
    return all(_one_holds(key, one, session, profile) for one in each)


def _one_holds(key: LoadedKey, one: bytes, session: pkcs11.Session, profile: Profile) -> bool:
    try:
        kw, claimed = wrapped_key.split(one)
        if not hmac.compare_digest(tag(key, _bound(key, kw), profile), claimed):
            return False
        with Transient(session, profile) as transient:
            try:
                transient.unwrap(key.wrapping, kw, sensitive=True)
            except DOUBTFUL:
                # The AES key did its work just before: twice, and it is not what wrapped this.
                transient.unwrap(key.wrapping, kw, sensitive=True)
    except (WrappedKeyRejected, *BAD_WRAPPING, *DOUBTFUL):
        return False
    return True


def _bound(key: LoadedKey, kw: bytes) -> bytes:
    name, _, number = key.ref.label.rpartition(".v")
    return wrapped_key.binding(SUITE_1, name, int(number), _CONTEXT_HASH, kw)
