"""Signing, agreement and decryption with a key that has proven itself.

The agent decides what is signed; here only what protects the token is checked again: digests are
exactly as long as the hash, points are on the curve, ciphertexts as long as the modulus. An item
that cannot be done is a `Fault`; a token that fails raises.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11.exceptions import FunctionFailed
from pkcs11.mechanisms import MGF, Mechanism

from keycustody.algorithms import (
    DECRYPTIONS,
    DecryptionAlgorithm,
    KeyAlgorithm,
    KeyFamily,
    Purpose,
    Scheme,
    SignatureAlgorithm,
    fits,
)
from keycustody.errors import (
    AlgorithmMismatch,
    DecryptionFailed,
    DigestLength,
    InvalidPoint,
    KeyPurpose,
    UnsupportedByToken,
)
from keycustody.formats.delivery import check_point
from keycustody.formats.suites import TAG_BYTES
from keycustody.token.api import Fault
from keycustody.token.hsm.failures import BAD_INPUT, DOUBTFUL, exactly
from keycustody.token.hsm.loaded import LoadedKey
from keycustody.token.hsm.public_keys import CURVES
from keycustody.token.hsm.transient import Transient, mechanism
from keycustody.token.profiles import Profile

#: DER of DigestInfo up to the digest (RFC 8017, 9.2 note 1): tokens sign what they are given.
_DIGEST_INFO = {
    "SHA_256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "SHA_384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "SHA_512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_MGF = {"SHA_1": MGF.SHA1, "SHA_256": MGF.SHA256, "SHA_384": MGF.SHA384, "SHA_512": MGF.SHA512}
_HASH = {
    "SHA_1": Mechanism.SHA_1,
    "SHA_256": Mechanism.SHA256,
    "SHA_384": Mechanism.SHA384,
    "SHA_512": Mechanism.SHA512,
}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "SHA_1": hashes.SHA1(),  # noqa: S303 (in OAEP only, where it needs no collision resistance)
    "SHA_256": hashes.SHA256(),
    "SHA_384": hashes.SHA384(),
    "SHA_512": hashes.SHA512(),
}
#: One sentence for every reason: the reason is what an attacker would want to know.
UNDECIPHERABLE = Fault(
    DecryptionFailed.code, "The ciphertext does not decrypt with this key and algorithm."
)


def require(key: "LoadedKey", purpose: Purpose) -> None:
    """Raise `KeyPurpose` unless the key is for that."""
    if Purpose(key.ref.purpose) is not purpose:
        raise KeyPurpose(f"Key {key.ref.label!r} is for {key.ref.purpose}, not {purpose.value}.")


def sign(
    key: "LoadedKey", algorithm: SignatureAlgorithm, inputs: Sequence[bytes], profile: Profile
) -> list[bytes | Fault]:
    """Sign digests, or for Ed25519 messages. ECDSA gives r || s, each as long as the curve's field.

    Raises `AlgorithmMismatch` if the key cannot make such signatures.
    """
    require(key, Purpose.SIGN)
    if not fits(algorithm, key.algorithm):
        raise AlgorithmMismatch(f"{key.algorithm.name} does not sign with {algorithm.name}.")
    means = mechanism(profile.schemes.get(algorithm.scheme))
    params = _pss(algorithm) if algorithm.scheme is Scheme.RSA_PSS else None
    prefix = _DIGEST_INFO[str(algorithm.hash)] if algorithm.scheme is Scheme.RSA_PKCS1 else b""
    private = key.private
    length = _signature_bytes(key.algorithm)

    def one(data: bytes) -> bytes | Fault:
        if algorithm.hash is not None and len(data) != algorithm.digest_bytes:
            return Fault(
                DigestLength.code,
                f"{algorithm.name} takes a digest of {algorithm.digest_bytes} bytes, "
                f"not {len(data)}.",
            )
        signature = private.sign(prefix + data, mechanism=means, mechanism_param=params)
        return exactly(bytes(signature), length)

    return [one(data) for data in inputs]


def _pss(algorithm: SignatureAlgorithm) -> tuple[Mechanism, MGF, int]:
    """RSASSA-PSS with MGF1 of the same hash and a salt as long as it (RFC 8017, 9.1)."""
    name = str(algorithm.hash)
    return _HASH[name], _MGF[name], algorithm.digest_bytes


def _signature_bytes(algorithm: KeyAlgorithm) -> int:
    if algorithm.family is KeyFamily.RSA:
        return algorithm.bits // 8
    return 2 * algorithm.coordinate_bytes if algorithm.family is KeyFamily.EC else 64


def agree(key: "LoadedKey", points: Sequence[bytes], profile: Profile) -> list[bytes | Fault]:
    """ECDH with each point: x coordinates, as long as the curve's field."""
    require(key, Purpose.AGREE)
    curve = CURVES[key.algorithm.name]
    private = key.private

    def one(point: bytes) -> bytes | Fault:
        try:
            check_point(point, curve)
        except InvalidPoint as error:
            return Fault(error.code, error.message)
        with Transient(private.session, profile) as transient:
            return transient.shared_secret(private, point, key.algorithm.coordinate_bytes)

    return [one(point) for point in points]


def decryptions(profile: Profile) -> tuple[DecryptionAlgorithm, ...]:
    """Return what the token can decrypt; `UnsupportedByToken` if nothing."""
    able = tuple(a for name, a in DECRYPTIONS.items() if name in profile.decryptions)
    if not able:
        raise UnsupportedByToken(f"Tokens of profile {profile.name} cannot decrypt.")
    return able


def decrypt(
    key: "LoadedKey",
    algorithm: DecryptionAlgorithm,
    ciphertexts: Sequence[bytes],
    profile: Profile,
) -> list[bytes | Fault]:
    """RSA-OAEP decryption with one hash for label and MGF1, and no label."""
    require(key, Purpose.DECRYPT)
    if algorithm not in decryptions(profile):
        raise UnsupportedByToken(
            f"Tokens of profile {profile.name} cannot decrypt {algorithm.name}."
        )
    means = mechanism(profile.oaep)
    params = (_HASH[algorithm.hash], _MGF[algorithm.hash], None)
    size = key.algorithm.bits // 8
    # RFC 8017, 7.1.1; how long a plaintext is within that, only its reader knows.
    longest = size - 2 * HASHES[algorithm.hash].digest_size - 2
    private = key.private

    def opened(ciphertext: bytes) -> bytes:
        plaintext = bytes(private.decrypt(ciphertext, mechanism=means, mechanism_param=params))
        # Nothing is what a length that cannot be becomes; and an empty message, which is rare.
        again = plaintext or private.decrypt(ciphertext, mechanism=means, mechanism_param=params)
        if plaintext != again or len(plaintext) > longest:
            raise FunctionFailed(f"the module gave a plaintext of {len(plaintext)} bytes")
        return plaintext

    def one(ciphertext: bytes) -> bytes | Fault:
        if len(ciphertext) != size:
            return UNDECIPHERABLE
        try:
            return opened(ciphertext)
        except (*BAD_INPUT, *DOUBTFUL):
            # Not a word that the ciphertext is to blame before the token did it with another one.
            opened(_sample(key, algorithm))
        try:
            return opened(ciphertext)
        except (*BAD_INPUT, *DOUBTFUL):
            return UNDECIPHERABLE

    return [one(ciphertext) for ciphertext in ciphertexts]


def _sample(key: "LoadedKey", algorithm: DecryptionAlgorithm) -> bytes:
    """Encrypt something to the key."""
    public = load_der_public_key(key.public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    hashed = HASHES[algorithm.hash]
    return public.encrypt(b"\0", padding.OAEP(padding.MGF1(hashed), hashed, None))


def tag(key: "LoadedKey", data: bytes, profile: Profile) -> bytes:
    """HMAC-SHA-256 under the HMAC key of a `wrap` version."""
    made = key.mac.sign(data, mechanism=mechanism(profile.mac))
    return exactly(bytes(made), TAG_BYTES)
