"""Private keys as pyca has them, with operations in the token.

`private_key` gives an `ec.EllipticCurvePrivateKey`, `rsa.RSAPrivateKey` or
`ed25519.Ed25519PrivateKey`. x509 builders, PyJWT and pyca's HPKE take one as it is.

Rules:

* A key object is one *version*, so that its public key and its signatures always fit together.
  After a rotation ask for the key again.
* Nothing is guessed: a hash, padding or salt length that the key's algorithms do not name is
  refused here, before anything is sent.
* What pyca's users catch, they can catch: refusals are also `UnsupportedAlgorithm`, and failed
  decryptions also `ValueError`, besides being errors of `keycustody.errors`.
* The private half cannot be had. `private_bytes` and `private_numbers` say so.
"""

from typing import Any, Final, NoReturn, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed

from keycustody import algorithms
from keycustody.client.calls import Flow, Outcome, SignInput
from keycustody.client.flows import Operations, as_bytes, results_of
from keycustody.client.session import Runner
from keycustody.client.signing import message_input
from keycustody.client.values import KeyInfo, KeyVersion
from keycustody.errors import (
    AlgorithmMismatch,
    DecryptionFailed,
    DigestLength,
    InternalError,
    InvalidPoint,
    KeyPurpose,
)

_HASHES: Final = {
    "sha1": "SHA_1",
    "sha256": "SHA_256",
    "sha384": "SHA_384",
    "sha512": "SHA_512",
}


class UnsupportedByKey(AlgorithmMismatch, UnsupportedAlgorithm):
    """The key's algorithms do not name this hash, padding or option."""


class WrongPurpose(KeyPurpose, UnsupportedAlgorithm):
    """The key is for another purpose, or what was asked for would need its private half."""


class RsaDecryptionFailed(DecryptionFailed, ValueError):
    """As `DecryptionFailed`; pyca raises ValueError here."""


class _TokenKey:
    """What the three kinds share: one version of a named key, and how to ask for its operations."""

    def __init__(
        self, run: Runner, operations: Operations, info: KeyInfo, version: KeyVersion
    ) -> None:
        self._run = run
        self._operations = operations
        self._info = info
        self._version = version

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} version {self.version}, in the token>"

    def __copy__(self) -> Self:
        return self  # immutable, and there is nothing to copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key in a token cannot be pickled; ask for it again by its name.")

    @property
    def name(self) -> str:
        """The key's name."""
        return self._info.name

    @property
    def version(self) -> int:
        """The version that this object stands for."""
        return self._version.version

    def private_bytes(self, *_arguments: object, **_options: object) -> NoReturn:
        """Always raises."""
        raise WrongPurpose(f"Key {self.name!r} stays in its token; its private half is not shown.")

    def private_bytes_raw(self) -> NoReturn:
        """Always raises."""
        self.private_bytes()

    def private_numbers(self) -> NoReturn:
        """Always raises."""
        self.private_bytes()

    def _only(self, flow: Flow[list[Outcome]]) -> bytes:
        return results_of(self._run(flow))[0]

    def _require(self, purpose: str) -> None:
        if self._info.purpose != purpose:
            raise WrongPurpose(f"Key {self.name!r} is for {self._info.purpose!r}, not {purpose!r}.")

    def _sign(self, data: bytes, algorithm: str, prehashed: Prehashed | None) -> bytes:
        self._require("sign")
        if algorithm not in self._info.algorithms:
            allowed = ", ".join(self._info.algorithms)
            raise UnsupportedByKey(f"Key {self.name!r} does not make {algorithm}; only {allowed}.")
        entry = algorithms.signature(algorithm)
        if prehashed is None:
            item = message_input(data, entry, prehashed=self._info.prehashed)
        elif len(data) != entry.digest_bytes:
            raise DigestLength(f"A digest for {algorithm} is {entry.digest_bytes} bytes.")
        else:
            item = SignInput(data, prehashed=True)
        operations, number = self._operations, self.version
        return self._only(operations.sign(self.name, [item], algorithm=algorithm, version=number))


class EcPrivateKey(_TokenKey, ec.EllipticCurvePrivateKey):
    """An EC key of purpose `sign` or `agree`."""

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half of this version."""
        key = self._version.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return key

    @property
    def curve(self) -> ec.EllipticCurve:
        """The key's curve."""
        return self.public_key().curve

    @property
    def key_size(self) -> int:
        """The curve's size in bits."""
        return self.curve.key_size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Sign by ECDSA with the curve's own hash; DER. `data` may be a digest (`Prehashed`)."""
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise UnsupportedByKey("An EC key in a token signs with ECDSA.")
        if signature_algorithm.deterministic_signing:
            raise UnsupportedByKey("A token does not promise deterministic ECDSA; leave it out.")
        algorithm, prehashed = _hash_name(signature_algorithm.algorithm)
        return self._sign(as_bytes(data), f"ECDSA_{algorithm}", prehashed)

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """The shared secret, the x coordinate; derive keys from it, never use it as one."""
        self._require("agree")
        if not isinstance(algorithm, ec.ECDH):
            raise UnsupportedByKey("An EC key in a token agrees with ECDH.")
        if peer_public_key.curve.name != self.curve.name:
            raise InvalidPoint(f"The peer's key is not on {self.curve.name}, as this key is.")
        number = self.version
        return self._only(self._operations.agree(self.name, [peer_public_key], version=number))


class RsaPrivateKey(_TokenKey, rsa.RSAPrivateKey):
    """An RSA key of purpose `sign` or `decrypt`."""

    def public_key(self) -> rsa.RSAPublicKey:
        """The public half of this version."""
        key = self._version.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        return key

    @property
    def key_size(self) -> int:
        """The modulus's length in bits."""
        return self.public_key().key_size

    def sign(
        self,
        data: Any,
        padding: padding.AsymmetricPadding,
        algorithm: Prehashed | hashes.HashAlgorithm | NoDigestInfo,
    ) -> bytes:
        """Sign by PKCS#1 v1.5, or by PSS whose MGF1 has the same hash and whose salt is as long as
        the digest. `data` may be a digest (`Prehashed`)."""
        if isinstance(algorithm, NoDigestInfo):
            raise UnsupportedByKey("Raw RSA is not offered: DigestInfo is built by the agent.")
        name, prehashed = _hash_name(algorithm)
        scheme = _signature_padding(padding, name)
        return self._sign(as_bytes(data), f"{scheme}_{name}", prehashed)

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        """Decrypt RSA-OAEP with one hash for label and MGF1, and no label."""
        self._require("decrypt")
        algorithm = _oaep(padding)
        if algorithm not in self._info.algorithms:
            allowed = ", ".join(self._info.algorithms)
            raise UnsupportedByKey(f"Key {self.name!r} does not do {algorithm}; only {allowed}.")
        flow = self._operations.rsa_decrypt(
            self.name, [as_bytes(ciphertext)], algorithm=algorithm, version=self.version
        )
        try:
            return self._only(flow)
        except DecryptionFailed as error:
            raise RsaDecryptionFailed(error.message, request_id=error.request_id) from error


class Ed25519PrivateKey(_TokenKey, ed25519.Ed25519PrivateKey):
    """An Ed25519 key of purpose `sign`."""

    def public_key(self) -> ed25519.Ed25519PublicKey:
        """The public half of this version."""
        key = self._version.public_key()
        assert isinstance(key, ed25519.Ed25519PublicKey)
        return key

    def sign(self, data: Any) -> bytes:
        """Sign a whole message (RFC 8032), at most the agent's message limit: 1 MiB by default."""
        return self._sign(as_bytes(data), "ED25519", None)


PrivateKey = EcPrivateKey | RsaPrivateKey | Ed25519PrivateKey


def private_key(
    run: Runner, operations: Operations, info: KeyInfo, version: int | None
) -> PrivateKey:
    """The key object for a key's version; None: the newest active one.

    Raises `KeyPurpose` for a `wrap` key and `KeyNotFound` for a version that cannot be used.
    """
    if info.purpose == algorithms.Purpose.WRAP:
        raise WrongPurpose(f"Key {info.name!r} is for 'wrap' and has no private half to use.")
    chosen = info.version(version)
    match chosen.public_key():
        case ec.EllipticCurvePublicKey():
            return EcPrivateKey(run, operations, info, chosen)
        case rsa.RSAPublicKey():
            return RsaPrivateKey(run, operations, info, chosen)
        case ed25519.Ed25519PublicKey():
            return Ed25519PrivateKey(run, operations, info, chosen)
        case _:
            raise InternalError(f"Key {info.name!r} is of a kind that this client does not know.")


def _hash_name(algorithm: Prehashed | hashes.HashAlgorithm) -> tuple[str, Prehashed | None]:
    prehashed = algorithm if isinstance(algorithm, Prehashed) else None
    # pyca keeps the hash of a Prehashed to itself, and gives no other way to ask for it.
    used = prehashed._algorithm if prehashed else algorithm
    name = _HASHES.get(getattr(used, "name", ""))
    if name is None:
        raise UnsupportedByKey("No key signs with this hash; use SHA-256, SHA-384 or SHA-512.")
    return name, prehashed


def _signature_padding(chosen: padding.AsymmetricPadding, hash_name: str) -> str:
    if isinstance(chosen, padding.PKCS1v15):
        return "RSA_PKCS1"
    if not isinstance(chosen, padding.PSS):
        raise UnsupportedByKey("An RSA key in a token signs with PSS or PKCS1v15.")
    if not _mgf1_has(chosen, hash_name):
        raise UnsupportedByKey("PSS takes MGF1 with the same hash as the message.")
    salt = chosen._salt_length
    digest_bytes = algorithms.signature(f"RSA_PSS_{hash_name}").digest_bytes
    if salt is not padding.PSS.DIGEST_LENGTH and salt != digest_bytes:
        raise UnsupportedByKey(
            "PSS takes a salt as long as the digest only: use padding.PSS.DIGEST_LENGTH."
        )
    return "RSA_PSS"


def _oaep(chosen: padding.AsymmetricPadding) -> str:
    if not isinstance(chosen, padding.OAEP):
        raise UnsupportedByKey("An RSA key in a token decrypts with OAEP only.")
    name = _HASHES.get(chosen.algorithm.name, "")
    if f"RSA_OAEP_{name}" not in algorithms.DECRYPTIONS or not _mgf1_has(chosen, name):
        raise UnsupportedByKey("OAEP takes SHA-256 or SHA-1, with the same hash in MGF1.")
    if chosen._label:
        raise UnsupportedByKey("OAEP takes no label.")
    return f"RSA_OAEP_{name}"


def _mgf1_has(chosen: padding.PSS | padding.OAEP, hash_name: str) -> bool:
    mgf = chosen.mgf
    return isinstance(mgf, padding.MGF1) and _HASHES.get(mgf._algorithm.name) == hash_name
