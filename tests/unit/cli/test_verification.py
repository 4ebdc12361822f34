"""Signatures are checked by what they claim to be, and by nothing else."""

import io
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keycustody.cli import verification
from keycustody.errors import (
    AlgorithmMismatch,
    InvalidRequest,
    InvalidSignature,
    MessageTooLarge,
    UnknownAlgorithm,
)

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
DATA = b"the data"

CASES = [
    ("ECDSA_SHA_256", P256, P256.sign(DATA, ec.ECDSA(hashes.SHA256()))),
    ("ECDSA_SHA_384", P384, P384.sign(DATA, ec.ECDSA(hashes.SHA384()))),
    ("ED25519", ED, ED.sign(DATA)),
    ("RSA_PSS_SHA_256", RSA, RSA.sign(DATA, PSS, hashes.SHA256())),
    ("RSA_PKCS1_SHA_512", RSA, RSA.sign(DATA, padding.PKCS1v15(), hashes.SHA512())),
]


def check(key: Any, name: str | None, data: bytes, signature: bytes, raw: bool = False) -> None:
    """Check a signature as the command does."""
    algorithm = verification.choose(key.public_key(), name)
    signed = verification.digest(io.BytesIO(data), algorithm)
    verification.check(key.public_key(), algorithm, signed, signature, raw)


@pytest.mark.parametrize(("name", "key", "signature"), CASES, ids=[case[0] for case in CASES])
class TestEachAlgorithm:
    def test_verifies(self, name: str, key: Any, signature: bytes) -> None:
        check(key, name, DATA, signature)

    def test_refuses_other_data(self, name: str, key: Any, signature: bytes) -> None:
        with pytest.raises(InvalidSignature):
            check(key, name, DATA + b".", signature)

    @pytest.mark.parametrize("edit", ["empty", "cut", "longer", "flipped"])
    def test_refuses_an_edited_signature(
        self, name: str, key: Any, signature: bytes, edit: str
    ) -> None:
        edited = {
            "empty": b"",
            "cut": signature[:-1],
            "longer": signature + b"\0",
            "flipped": signature[:-1] + bytes([signature[-1] ^ 1]),
        }[edit]

        with pytest.raises(InvalidSignature):
            check(key, name, DATA, edited)


def test_the_default_is_the_first_in_the_table_and_is_not_found_by_trying() -> None:
    check(RSA, None, DATA, RSA.sign(DATA, PSS, hashes.SHA256()))
    pkcs1 = RSA.sign(DATA, padding.PKCS1v15(), hashes.SHA256())

    with pytest.raises(InvalidSignature):
        check(RSA, None, DATA, pkcs1)


def test_a_pss_salt_of_another_length_is_refused() -> None:
    long_salt = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    signature = RSA.sign(DATA, long_salt, hashes.SHA256())

    with pytest.raises(InvalidSignature):
        check(RSA, "RSA_PSS_SHA_256", DATA, signature)


def test_raw_is_r_and_s_and_nothing_else() -> None:
    der = P256.sign(DATA, ec.ECDSA(hashes.SHA256()))
    r, s = utils.decode_dss_signature(der)
    raw = r.to_bytes(32) + s.to_bytes(32)

    check(P256, None, DATA, raw, raw=True)
    with pytest.raises(InvalidSignature, match="64 bytes"):
        check(P256, None, DATA, der, raw=True)
    with pytest.raises(AlgorithmMismatch):
        check(ED, None, DATA, ED.sign(DATA), raw=True)


@pytest.mark.parametrize(
    ("key", "name", "error"),
    [
        (P256, "ECDSA_SHA_384", AlgorithmMismatch),
        (P256, "ED25519", AlgorithmMismatch),
        (ED, "ECDSA_SHA_256", AlgorithmMismatch),
        (RSA, "ecdsa_sha_256", UnknownAlgorithm),
    ],
    ids=["curve", "family", "other-family", "unknown"],
)
def test_an_algorithm_that_does_not_fit_is_refused(
    key: Any, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        verification.choose(key.public_key(), name)


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 2056)],
    ids=["P-521", "RSA-2056"],
)
def test_keys_that_are_not_in_the_table_are_refused(key: Any) -> None:
    with pytest.raises(AlgorithmMismatch):
        verification.choose(key.public_key(), None)


def test_ed25519_reads_a_bounded_message() -> None:
    huge = io.BytesIO(bytes(verification.MAX_WHOLE_MESSAGE_BYTES + 1))
    algorithm = verification.choose(ED.public_key(), None)

    with pytest.raises(MessageTooLarge):
        verification.digest(huge, algorithm)


def test_only_pem_is_a_public_key() -> None:
    pem = P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    assert verification.load_public_key(pem) == P256.public_key()
    for data in (b"", b"no", pem[:60]):
        with pytest.raises(InvalidRequest):
            verification.load_public_key(data)
