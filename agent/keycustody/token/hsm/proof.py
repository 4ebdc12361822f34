"""A key proves itself before it is served: its private key does what its public key expects.

Each purpose has one proof, made with the mechanism that the key is for, on a text that is ours
alone: a signature of it, its decryption, an agreement with a fresh key, a round trip and the
witness. Attributes are checked elsewhere; a proof is what cannot be written into an attribute. The
same proof is the self-test of a key (`SelfTest` in `keycustody.token.api`): its answer is known
beforehand, or computed beside the token, and never leaves this process.
"""

import hmac

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keycustody.algorithms import Purpose, Scheme, SignatureAlgorithm, signatures_for
from keycustody.errors import KeyNotTrusted, UnsupportedByToken
from keycustody.formats.delivery import public_point
from keycustody.token.hsm import operations, witness
from keycustody.token.hsm.failures import BAD_WRAPPING, DOUBTFUL
from keycustody.token.hsm.loaded import LoadedKey
from keycustody.token.hsm.public_keys import CURVES
from keycustody.token.hsm.transient import Transient
from keycustody.token.profiles import Profile

#: Nothing that anybody would sign: it says what it is, and no protocol's messages start like it.
MESSAGE = b"keycustody.selftest.v1\0a key shows that it is what its public key says; nothing else"


def prove(key: "LoadedKey", session: pkcs11.Session, profile: Profile) -> None:
    """Raise `KeyNotTrusted` unless the objects of the key belong together."""
    proofs = {
        Purpose.SIGN: lambda: _signs(key, profile),
        Purpose.AGREE: lambda: _agrees(key, profile),
        Purpose.DECRYPT: lambda: _decrypts(key, profile),
        Purpose.WRAP: lambda: _wraps(key, session, profile) and _is_itself(key, session, profile),
    }
    try:
        proven = proofs[Purpose(key.ref.purpose)]()
    except BAD_WRAPPING as error:
        raise KeyNotTrusted(
            f"Key {key.ref.label!r} is not trusted: the token failed its self-check."
        ) from error
    if not proven:
        raise KeyNotTrusted(
            f"Key {key.ref.label!r} is not trusted: its objects do not belong together."
        )


def _signs(key: "LoadedKey", profile: Profile) -> bool:
    supported = profile.signatures()
    algorithm = next((a for a in signatures_for(key.algorithm) if a.name in supported), None)
    if algorithm is None:
        raise UnsupportedByToken(f"Tokens of profile {profile.name} cannot sign with this key.")
    message = MESSAGE
    if algorithm.hash is not None:
        digest = hashes.Hash(operations.HASHES[algorithm.hash])
        digest.update(MESSAGE)
        message = digest.finalize()
    (signature,) = operations.sign(key, algorithm, [message], profile)
    return isinstance(signature, bytes) and _verifies(key, algorithm, message, signature)


def _verifies(
    key: "LoadedKey", algorithm: SignatureAlgorithm, message: bytes, signature: bytes
) -> bool:
    public = load_der_public_key(key.public_key)
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
            return True
        hashed = operations.HASHES[str(algorithm.hash)]
        if isinstance(public, ec.EllipticCurvePublicKey):
            half = len(signature) // 2
            r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            public.verify(encode_dss_signature(r, s), message, ec.ECDSA(Prehashed(hashed)))
            return True
        assert isinstance(public, rsa.RSAPublicKey)
        padded = (
            padding.PSS(padding.MGF1(hashed), hashed.digest_size)
            if algorithm.scheme is Scheme.RSA_PSS
            else padding.PKCS1v15()
        )
        public.verify(signature, message, padded, Prehashed(hashed))
    except InvalidSignature:
        return False
    return True


def _agrees(key: "LoadedKey", profile: Profile) -> bool:
    public = load_der_public_key(key.public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    ephemeral = ec.generate_private_key(CURVES[key.algorithm.name])
    (shared,) = operations.agree(key, [public_point(ephemeral)], profile)
    return isinstance(shared, bytes) and hmac.compare_digest(
        shared, ephemeral.exchange(ec.ECDH(), public)
    )


def _decrypts(key: "LoadedKey", profile: Profile) -> bool:
    public = load_der_public_key(key.public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    algorithm = operations.decryptions(profile)[0]
    hashed = operations.HASHES[algorithm.hash]
    ciphertext = public.encrypt(MESSAGE, padding.OAEP(padding.MGF1(hashed), hashed, None))
    try:
        (answer,) = operations.decrypt(key, algorithm, [ciphertext], profile)
    except DOUBTFUL:
        return False  # what SoftHSM says of a private key that is another one
    return isinstance(answer, bytes) and hmac.compare_digest(answer, MESSAGE)


def _is_itself(key: LoadedKey, session: pkcs11.Session, profile: Profile) -> bool:
    return not key.ref.witness or witness.holds(key, session, profile)


def _wraps(key: "LoadedKey", session: pkcs11.Session, profile: Profile) -> bool:
    """Wrap a key of no value and open it again, in the token; and make a tag that depends on what
    it is made over."""
    with Transient(session, profile) as transient:
        sample = transient.session_key(sensitive=False)
        value = transient.value(sample)
        wrapped = transient.wrap(key.wrapping, sample)
        again = transient.unwrap(key.wrapping, wrapped, sensitive=False)
        opened = hmac.compare_digest(transient.value(again), value)
    tags = [operations.tag(key, MESSAGE + suffix, profile) for suffix in (b"1", b"1", b"2")]
    return (
        opened
        and value not in wrapped
        and len(tags[0]) == hashes.SHA256.digest_size
        and tags[0] == tags[1] != tags[2]
    )
