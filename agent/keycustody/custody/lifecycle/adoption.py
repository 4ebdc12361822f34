"""Taking a key that was on the token before us, as it is.

It stays where and what it is; only a record is added, which says what about it is weaker than in
keys that we make, and what its public key is. Exactly that is accepted of it from then on. What a
weaker key cannot have is what its purpose and its secrecy rest on: it must be a private object that
nobody sees without the PIN, of the declared algorithm, that may do what it is for.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keycustody.algorithms import KEYS, KeyFamily, Purpose
from keycustody.config import KeySettings
from keycustody.custody.keys import states
from keycustody.custody.keys.evidence import label_of
from keycustody.custody.lifecycle.steps import Step
from keycustody.errors import KeyNotFound, KeyNotTrusted
from keycustody.formats.state import AdoptedRecord, Adoption, State
from keycustody.token.api import FoundObject, Inspect, KeyRef, SelfTest, Token
from keycustody.token.attributes import RESERVED, private_object, weaknesses
from keycustody.token.profiles import Profile

_TIMEOUT = 60.0
_USES = {Purpose.SIGN: "SIGN", Purpose.AGREE: "DERIVE", Purpose.DECRYPT: "DECRYPT"}


async def record_of(step: Step, token: Token, profile: Profile, now: datetime) -> AdoptedRecord:
    """Return the record that adopts a key, after it has proven itself as that.

    Raises `KeyNotFound` if there is no such key, `KeyNotTrusted` with what keeps it from being
    used.
    """
    settings = step.settings
    assert settings is not None
    objects = (await token.call(Inspect(step.id), timeout=_TIMEOUT)).objects
    private = private_half(step.id, objects)
    public_key = _public(objects, settings)
    found = weaknesses(private_object(settings.purpose, settings.algorithm, profile), private)
    needed = {"KEY_TYPE", "TOKEN", "PRIVATE", _USES[settings.purpose]}
    if lacking := [str(weakness) for weakness in found if weakness.name in needed]:
        raise KeyNotTrusted(f"That key cannot be used: {'; '.join(lacking)}.")
    weaker = tuple(sorted(weakness.recorded for weakness in found))
    digest = hashlib.sha256(public_key)
    ref = KeyRef(
        label_of(step.key, step.version),
        step.id,
        settings.purpose,
        settings.algorithm,
        digest.digest(),
        adopted=Adoption(private.label, weaker, public_key),
    )
    await token.call(SelfTest(ref), timeout=_TIMEOUT)
    return AdoptedRecord(
        v=2,
        name=step.key,
        version=step.version,
        id=step.id.hex(),
        purpose=settings.purpose.value,
        algorithm=settings.algorithm,
        public_sha256=digest.hexdigest(),
        witness="",
        state=State.ACTIVE,
        time=states.stamp(now),
        reason="adopted",
        label=private.label,
        weaker=weaker,
        public_key=public_key.hex(),
    )


def private_half(id_: bytes, objects: Iterable[FoundObject]) -> FoundObject:
    """The private key with that `CKA_ID`. Raises `KeyNotFound`, `KeyNotTrusted` if there is not
    exactly one that may be adopted."""
    private = [one for one in objects if one.kind == "private" and one.id == id_]
    if not private:
        raise KeyNotFound(
            "The token holds no private key with that CKA_ID; `keycustody keys plan` names the "
            "CKA_ID of each key that is not declared."
        )
    if len(private) > 1:
        raise KeyNotTrusted(f"The token holds {len(private)} private keys with that CKA_ID.")
    if private[0].label.startswith(RESERVED):
        raise KeyNotTrusted("That is one of the agent's own keys.")
    return private[0]


def _public(objects: list[FoundObject], settings: KeySettings) -> bytes:
    """The public key beside it. It need not be protected: the private key proves it."""
    found = {one.public_key for one in objects if one.kind == "public"}
    if len(found) != 1 or not all(found):
        raise KeyNotTrusted(
            f"The token holds {len(found)} public keys with that CKA_ID, must be 1; put the right "
            "one beside the private key with the token's own tools."
        )
    public_key = found.pop()
    if not _is(public_key, settings.algorithm):
        raise KeyNotTrusted(f"That key is not {settings.algorithm}, as it is declared.")
    return public_key


def _is(public_key: bytes, algorithm: str) -> bool:
    wanted = KEYS[algorithm]
    try:
        key = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        return False
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name == wanted.curve
    if isinstance(key, rsa.RSAPublicKey):
        return wanted.family is KeyFamily.RSA and key.key_size == wanted.bits
    return isinstance(key, ed25519.Ed25519PublicKey) and wanted.family is KeyFamily.ED25519
