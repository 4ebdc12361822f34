"""Sealed delivery: a session key on its way from the token to one client. docs/format.md section 5.

    Z       = ECDH(P-256; delivery key, client's ephemeral key)
    T       = AES-256-ECB(Z, binding)
    sealed  = AES-256-KeyWrap(T, session key)

The token seals; `open_sealed` is the client's side. The agent chooses the delivery point, so this
does not protect from an agent that is itself malicious.

A worker imports this for `binding` alone, so `cryptography` is imported where it is used.
"""

import hashlib
from typing import TYPE_CHECKING, Final

from keycustody.errors import DeliveryRejected, InvalidPoint, InvalidRequest, WrappedKeyRejected
from keycustody.formats.suites import POINT_BYTES, SEALED_BYTES, check_suite
from keycustody.formats.wrapped_key import owner, split

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_LABEL: Final = b"keycustody.delivery.v1\0"
_UNCOMPRESSED: Final = 4


def binding(
    suite: int,
    delivery_point: bytes,
    client_point: bytes,
    name: str,
    version: int,
    context_hash: bytes,
    wrapped: bytes,
) -> bytes:
    """The 32 bytes that a delivery is bound to: the data of `CKM_AES_ECB_ENCRYPT_DATA`.

    Points are 65 bytes and are not otherwise checked here (see `check_point`). Raises
    `InvalidRequest`, and `WrappedKeyRejected` for a wrapped key of a wrong length.
    """
    check_suite(suite)
    if len(delivery_point) != POINT_BYTES or len(client_point) != POINT_BYTES:
        raise InvalidPoint(f"A delivery's points are {POINT_BYTES} bytes, uncompressed.")
    split(wrapped)
    return hashlib.sha256(
        _LABEL
        + suite.to_bytes(2)
        + delivery_point
        + client_point
        + owner(name, version, context_hash)
        + hashlib.sha256(wrapped).digest()
    ).digest()


def open_sealed(
    ephemeral: "ec.EllipticCurvePrivateKey",
    sealed: bytes,
    *,
    delivery_point: bytes,
    client_point: bytes,
    suite: int,
    name: str,
    version: int,
    context_hash: bytes,
    wrapped: bytes,
) -> bytes:
    """The 32-byte session key in `sealed`, for the client that holds `ephemeral` (P-256).

    `name` and `context_hash` MUST be what the client asked for, not what an answer says; so must
    `version`, where it asked for one. Raises `DeliveryRejected` for a bad delivery point, a bad
    length and for whatever was sealed for another key, version, context, wrapped key or client.
    An `ephemeral` on another curve is a mistake of the caller's own: `ValueError`.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

    if len(sealed) != SEALED_BYTES:
        raise DeliveryRejected(f"A sealed session key is {SEALED_BYTES} bytes, not {len(sealed)}.")
    try:
        bound = binding(suite, delivery_point, client_point, name, version, context_hash, wrapped)
        peer = check_point(delivery_point, ec.SECP256R1())
    except (InvalidRequest, WrappedKeyRejected) as error:
        raise DeliveryRejected(f"The delivery is not valid: {error}") from error
    shared = ephemeral.exchange(ec.ECDH(), peer)
    # ECB as a key derivation: `shared` is used for nothing else and `bound` is a hash, so equal
    # blocks do not occur in practice.
    encryptor = Cipher(algorithms.AES(shared), modes.ECB()).encryptor()  # noqa: S305
    transport = encryptor.update(bound) + encryptor.finalize()
    try:
        return aes_key_unwrap(transport, sealed)
    except InvalidUnwrap as error:
        raise DeliveryRejected(
            "The delivered session key was not sealed for this request."
        ) from error


def public_point(private_key: "ec.EllipticCurvePrivateKey") -> bytes:
    """The uncompressed point of a private key's public key: 65 bytes on P-256."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return private_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def check_point(point: bytes, curve: "ec.EllipticCurve") -> "ec.EllipticCurvePublicKey":
    """The public key at `point`, which MUST be uncompressed (SEC 1 2.3.3) and on `curve`.

    Raises `InvalidPoint` for any other encoding, a point off the curve, and infinity.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    expected = 1 + 2 * ((curve.key_size + 7) // 8)
    if len(point) != expected or point[0] != _UNCOMPRESSED:
        raise InvalidPoint(
            f"A point on {curve.name} is {expected} bytes, uncompressed: 0x04, x and y."
        )
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError as error:
        raise InvalidPoint(f"The point is not on {curve.name}.") from error
