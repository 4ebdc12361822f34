"""A JWK is what PyJWT reads back, and its `kid` is the RFC's thumbprint."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWK

from keycustody.cli import jwk


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()).public_key(), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()).public_key(), "ES384"),
        (ed25519.Ed25519PrivateKey.generate().public_key(), "EdDSA"),
        (rsa.generate_private_key(65537, 2048).public_key(), "RS256"),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA"],
)
def test_pyjwt_reads_the_same_key(key: Any, algorithm: str) -> None:
    members = jwk.of(key, "sign")

    assert members["use"] == "sig"
    assert PyJWK.from_json(json.dumps(members), algorithm).key == key


def test_coordinates_keep_their_leading_zeros() -> None:
    # RFC 7518, 6.2.1.2: the octet string is as long as the coordinate, zeros included.
    number = next(
        n
        for n in range(1, 5000)
        if ec.derive_private_key(n, ec.SECP256R1()).public_key().public_numbers().x < 2**248
    )
    members = jwk.of(ec.derive_private_key(number, ec.SECP256R1()).public_key(), "agree")

    assert len(members["x"]) == 43
    assert members["use"] == "enc"


def test_kid_is_the_thumbprint_of_rfc_8037() -> None:
    # RFC 8037, appendices A.2 and A.3.
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    members = jwk.of(ed25519.Ed25519PublicKey.from_public_bytes(public), "sign")

    assert members["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
