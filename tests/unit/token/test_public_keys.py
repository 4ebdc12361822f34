"""Public keys from what PKCS#11 tells, in the encodings that modules use."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keycustody.algorithms import KEYS
from keycustody.token.hsm.public_keys import EC_PARAMS, spki

_CURVES: dict[str, ec.EllipticCurve] = {"EC_P256": ec.SECP256R1(), "EC_P384": ec.SECP384R1()}


def _der(public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _octets(value: bytes) -> bytes:
    return bytes((4, len(value))) + value


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("name", ["EC_P256", "EC_P384"])
def test_points_with_and_without_der(name: str, wrapped: bool) -> None:
    public = ec.generate_private_key(_CURVES[name]).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    told = _octets(point) if wrapped else point
    assert spki(EC_PARAMS[name], told, b"", b"", KEYS[name]) == _der(public)
    other = KEYS["EC_P384" if name == "EC_P256" else "EC_P256"]
    assert spki(EC_PARAMS[name], told, b"", b"", other) == b""


@pytest.mark.parametrize("params", [EC_PARAMS["ED25519"], bytes.fromhex("06032b6570")])
@pytest.mark.parametrize("wrapped", [True, False])
def test_ed25519_by_name_and_by_identifier(params: bytes, wrapped: bool) -> None:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    told = _octets(raw) if wrapped else raw
    assert spki(params, told, b"", b"", KEYS["ED25519"]) == _der(public)


def test_rsa() -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    modulus = public.public_numbers().n.to_bytes(256)
    assert spki(b"", b"", modulus, b"\1\0\1", KEYS["RSA_2048"]) == _der(public)
    assert spki(b"", b"", b"\0" + modulus, b"\1\0\1", KEYS["RSA_2048"]) == _der(public)
    assert spki(b"", b"", modulus, b"\1\0\1", KEYS["RSA_3072"]) == b""


@pytest.mark.parametrize(
    ("params", "point"),
    [
        (b"", b""),
        (b"", _octets(bytes(65))),
        (b"\x06\x01\x00", _octets(b"\4" + bytes(64))),
        (EC_PARAMS["EC_P256"], b"\4"),
        (EC_PARAMS["EC_P256"], b"\4" + bytes(64)),
        (EC_PARAMS["EC_P256"], _octets(b"\4" + bytes(64))),
        (EC_PARAMS["EC_P256"], bytes(65)),
        (EC_PARAMS["ED25519"], bytes(31)),
        (EC_PARAMS["EC_P384"], _octets(b"\4" + bytes(64))),
    ],
)
def test_what_makes_no_key_makes_nothing(params: bytes, point: bytes) -> None:
    assert spki(params, point, b"", b"", None) == b""


@pytest.mark.parametrize(
    ("modulus", "exponent"), [(b"\1", b"\3"), (bytes(256), b""), (b"\xff" * 256, b"\2")]
)
def test_numbers_that_make_no_rsa_key_make_nothing(modulus: bytes, exponent: bytes) -> None:
    assert spki(b"", b"", modulus, exponent, None) == b""
