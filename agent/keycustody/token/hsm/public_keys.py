"""A public key from the numbers that PKCS#11 tells. PKCS#11 v3.1 6.3.3 and 6.1.2; no I/O.

It knows the key algorithms of `keycustody.algorithms.KEYS` and no others.
"""

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keycustody.algorithms import KEYS, KeyAlgorithm, KeyFamily
from keycustody.errors import InvalidPoint
from keycustody.formats.delivery import check_point

CURVES: dict[str, ec.EllipticCurve] = {"EC_P256": ec.SECP256R1(), "EC_P384": ec.SECP384R1()}

#: DER of the curve's object identifier; for Ed25519 the PrintableString that modules generate from.
EC_PARAMS = {
    "EC_P256": bytes.fromhex("06082a8648ce3d030107"),
    "EC_P384": bytes.fromhex("06052b81040022"),
    "ED25519": b"\x13\x0cedwards25519",
}
#: Modules may answer with either encoding of the same curve (RFC 8410 has the identifier).
_ALGORITHM_OF_PARAMS = {
    **{params: name for name, params in EC_PARAMS.items()},
    bytes.fromhex("06032b6570"): "ED25519",
}
_ED25519_BYTES = 32
_OCTET_STRING = 4

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def spki(
    params: bytes, point: bytes, modulus: bytes, exponent: bytes, declared: KeyAlgorithm | None
) -> bytes:
    """Return the DER SubjectPublicKeyInfo, or nothing if the numbers make no key that we know, or
    not one of the declared algorithm."""
    try:
        key = _elliptic(params, point) if point else _rsa(modulus, exponent)
    except (ValueError, InvalidPoint):
        return b""
    if key is None or (declared is not None and not _is(key, declared)):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _elliptic(params: bytes, point: bytes) -> PublicKey | None:
    name = _ALGORITHM_OF_PARAMS.get(params)
    if name is None:
        return None
    if name == "ED25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(_octets(point, _ED25519_BYTES))
    return check_point(_octets(point, 1 + 2 * KEYS[name].coordinate_bytes), CURVES[name])


def _octets(point: bytes, length: int) -> bytes:
    """CKA_EC_POINT is a DER OCTET STRING; some modules leave out its tag and length."""
    if len(point) == length + 2 and point[:2] == bytes((_OCTET_STRING, length)):
        return point[2:]
    return point


def _rsa(modulus: bytes, exponent: bytes) -> PublicKey | None:
    if not modulus:
        return None
    return rsa.RSAPublicNumbers(
        int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")
    ).public_key()


def _is(key: PublicKey, declared: KeyAlgorithm) -> bool:
    match declared.family:
        case KeyFamily.EC:
            return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == declared.curve
        case KeyFamily.ED25519:
            return isinstance(key, ed25519.Ed25519PublicKey)
        case KeyFamily.RSA:
            return isinstance(key, rsa.RSAPublicKey) and key.key_size == declared.bits
        case KeyFamily.AES_WITH_HMAC:
            return False
