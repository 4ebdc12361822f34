"""Checking a signature against a public key, without any agent.

The algorithm is the one that is named, or else the key's default: the first that
`keycustody.algorithms` lists for it. It is never found by trying.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import BinaryIO

from cryptography.exceptions import InvalidSignature as Mismatch
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keycustody import algorithms
from keycustody.algorithms import KeyAlgorithm, Scheme, SignatureAlgorithm
from keycustody.errors import AlgorithmMismatch, InvalidRequest, InvalidSignature, MessageTooLarge

#: Ed25519 signs whole messages. No agent can be configured to take larger ones.
MAX_WHOLE_MESSAGE_BYTES = 16 * 2**20

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "SHA_256": hashes.SHA256(),
    "SHA_384": hashes.SHA384(),
    "SHA_512": hashes.SHA512(),
}


def load_public_key(pem: bytes) -> PublicKeyTypes:
    """A public key in PEM. Raises `InvalidRequest`."""
    try:
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidRequest("The public key is not a SubjectPublicKeyInfo in PEM.") from error


def key_algorithm(key: PublicKeyTypes) -> KeyAlgorithm:
    """What the key is. Raises `AlgorithmMismatch` if it is nothing that signs here."""
    for entry in algorithms.KEYS.values():
        match key:
            case ec.EllipticCurvePublicKey() if key.curve.name == entry.curve:
                return entry
            case ed25519.Ed25519PublicKey() if entry.name == "ED25519":
                return entry
            case rsa.RSAPublicKey() if entry.name == f"RSA_{key.key_size}":
                return entry
    raise AlgorithmMismatch(f"The public key is none of {', '.join(algorithms.KEYS)}.")


def choose(key: PublicKeyTypes, name: str | None) -> SignatureAlgorithm:
    """The algorithm of that name, or the key's default. Raises `AlgorithmMismatch`."""
    described = key_algorithm(key)
    fitting = algorithms.signatures_for(described)
    if name is None:
        return fitting[0]
    chosen = algorithms.signature(name)
    if chosen not in fitting:
        known = ", ".join(entry.name for entry in fitting)
        raise AlgorithmMismatch(f"{name} is not for {described.name} keys; name one of {known}.")
    return chosen


def digest(file: BinaryIO, algorithm: SignatureAlgorithm) -> bytes:
    """What the signature is over: the file's hash, or for Ed25519 the file itself."""
    if algorithm.hash is None:
        message = file.read(MAX_WHOLE_MESSAGE_BYTES + 1)
        if len(message) > MAX_WHOLE_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"{algorithm.name} signs whole messages of at most {MAX_WHOLE_MESSAGE_BYTES} "
                "bytes; sign the file's hash, or use a key with another algorithm."
            )
        return message
    state = hashlib.new(algorithm.hash.replace("_", "").lower())
    while block := file.read(2**20):
        state.update(block)
    return state.digest()


def check(
    key: PublicKeyTypes, algorithm: SignatureAlgorithm, signed: bytes, signature: bytes, raw: bool
) -> None:
    """Raise `InvalidSignature` unless `signature` is over `signed`, as `digest` returns it."""
    if raw:
        signature = _der(key_algorithm(key), algorithm, signature)
    try:
        _verifier(key, algorithm)(signature, signed)
    except (Mismatch, ValueError) as error:
        raise InvalidSignature("The signature does not verify.") from error


def check_any(
    keys: Sequence[PublicKeyTypes],
    algorithm: SignatureAlgorithm,
    signed: bytes,
    signature: bytes,
    raw: bool,
) -> None:
    """Raise `InvalidSignature` unless the signature is of one of these, of which there is one."""
    for key in keys[:-1]:
        with suppress(InvalidSignature):
            check(key, algorithm, signed, signature, raw)
            return
    check(keys[-1], algorithm, signed, signature, raw)


def _verifier(key: PublicKeyTypes, algorithm: SignatureAlgorithm) -> Callable[[bytes, bytes], None]:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key.verify
    hashed = _HASHES[algorithm.hash or ""]
    prehashed = utils.Prehashed(hashed)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return lambda signature, data: key.verify(signature, data, ec.ECDSA(prehashed))
    # choose() let nothing else through.
    assert isinstance(key, rsa.RSAPublicKey)
    pad: padding.AsymmetricPadding = padding.PKCS1v15()
    if algorithm.scheme is Scheme.RSA_PSS:
        # The salt is as long as the hash: what the agent makes, and no other.
        pad = padding.PSS(padding.MGF1(hashed), algorithm.digest_bytes)
    return lambda signature, data: key.verify(signature, data, pad, prehashed)


def _der(key: KeyAlgorithm, algorithm: SignatureAlgorithm, signature: bytes) -> bytes:
    if algorithm.scheme is not Scheme.ECDSA:
        raise AlgorithmMismatch("Only ECDSA signatures have a raw form; leave out --raw.")
    size = key.coordinate_bytes
    if len(signature) != 2 * size:
        raise InvalidSignature(f"A raw {algorithm.name} signature is {2 * size} bytes.")
    return utils.encode_dss_signature(
        int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
    )
