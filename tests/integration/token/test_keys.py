"""Every key algorithm and purpose on a real token, judged by pyca from the outside."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keycustody import algorithms
from keycustody.algorithms import KEYS, SIGNATURES, Purpose, Scheme, SignatureAlgorithm
from keycustody.errors import AlgorithmMismatch, KeycustodyError, KeyPurpose, UnsupportedByToken
from keycustody.formats.delivery import public_point
from keycustody.token.api import Agree, CreateVersion, Decrypt, Fault, Sign
from tests.integration.token.opened import Made, OpenedPool

_HASHES: dict[str | None, Any] = {
    "SHA_256": hashes.SHA256(),
    "SHA_384": hashes.SHA384(),
    "SHA_512": hashes.SHA512(),
}
#: In OAEP it needs no collision resistance, and SoftHSM offers no other.
_SHA1 = hashes.SHA1()  # noqa: S303
_CURVES: dict[str, ec.EllipticCurve] = {"EC_P256": ec.SECP256R1(), "EC_P384": ec.SECP384R1()}
_SIGNING = [
    (key.name, signature.name)
    for key in KEYS.values()
    if Purpose.SIGN in key.purposes
    for signature in algorithms.signatures_for(key)
]
MESSAGE = b"what is to be signed"


@pytest.fixture(scope="module")
def keys(token: OpenedPool) -> dict[str, Made]:
    """One signing key of each algorithm."""
    return {
        key.name: token.make("sign", key.name)
        for key in KEYS.values()
        if Purpose.SIGN in key.purposes
    }


def _digest(algorithm: SignatureAlgorithm) -> bytes:
    if algorithm.hash is None:
        return MESSAGE
    return hashlib.new(algorithm.hash.replace("_", ""), MESSAGE).digest()


def _verify(public_key: bytes, algorithm: SignatureAlgorithm, signature: bytes) -> None:
    public = load_der_public_key(public_key)
    if isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(signature, MESSAGE)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        size = (public.key_size + 7) // 8
        assert len(signature) == 2 * size
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        public.verify(encode_dss_signature(r, s), MESSAGE, ec.ECDSA(_HASHES[algorithm.hash]))
    else:
        assert isinstance(public, rsa.RSAPublicKey)
        hashed = _HASHES[algorithm.hash]
        padded: Any = (
            padding.PSS(padding.MGF1(hashed), hashed.digest_size)
            if algorithm.scheme is Scheme.RSA_PSS
            else padding.PKCS1v15()
        )
        public.verify(signature, _digest(algorithm), padded, Prehashed(hashed))


@pytest.mark.parametrize(("key", "algorithm"), _SIGNING)
def test_what_is_signed_verifies(
    token: OpenedPool, keys: dict[str, Made], key: str, algorithm: str
) -> None:
    entry = SIGNATURES[algorithm]
    made = keys[key]
    for signature in token.call(Sign(made.ref, algorithm, [_digest(entry)] * 2)).items:
        assert isinstance(signature, bytes)
        _verify(made.public_key, entry, signature)


@pytest.mark.parametrize(
    ("key", "algorithm"), [pair for pair in _SIGNING if SIGNATURES[pair[1]].hash]
)
def test_only_digests_of_the_right_length_are_signed(
    token: OpenedPool, keys: dict[str, Made], key: str, algorithm: str
) -> None:
    size = SIGNATURES[algorithm].digest_bytes
    wrong = [b"", b"x", bytes(size - 1), bytes(size + 1), bytes(1000)]
    results = token.call(Sign(keys[key].ref, algorithm, [*wrong, bytes(size)])).items
    assert [r.code for r in results[:-1] if isinstance(r, Fault)] == ["DIGEST_LENGTH"] * len(wrong)
    assert isinstance(results[-1], bytes)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 4096, 8192, 8193, 1024 * 1024])
def test_ed25519_signs_messages_of_any_size(
    token: OpenedPool, keys: dict[str, Made], size: int
) -> None:
    made = keys["ED25519"]
    (signature,) = token.call(Sign(made.ref, "ED25519", [bytes(size)])).items
    assert isinstance(signature, bytes)
    public = load_der_public_key(made.public_key)
    assert isinstance(public, ed25519.Ed25519PublicKey)
    public.verify(signature, bytes(size))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        ("EC_P256", "ECDSA_SHA_384"),
        ("EC_P384", "ECDSA_SHA_256"),
        ("EC_P256", "ED25519"),
        ("ED25519", "ECDSA_SHA_256"),
        ("RSA_2048", "ECDSA_SHA_256"),
        ("EC_P256", "RSA_PSS_SHA_256"),
    ],
)
def test_a_key_signs_only_with_what_fits_it(
    token: OpenedPool, keys: dict[str, Made], key: str, algorithm: str
) -> None:
    request = Sign(keys[key].ref, algorithm, [bytes(32)])
    with pytest.raises(AlgorithmMismatch):
        token.call(request)


@pytest.mark.parametrize("algorithm", ["EC_P256", "EC_P384"])
def test_agreement_gives_what_the_peer_computes(token: OpenedPool, algorithm: str) -> None:
    made = token.make("agree", algorithm)
    public = load_der_public_key(made.public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    peers = [ec.generate_private_key(_CURVES[algorithm]) for _ in range(3)]
    results = token.call(Agree(made.ref, [public_point(peer) for peer in peers])).items
    assert results == [peer.exchange(ec.ECDH(), public) for peer in peers]


def _points(curve: ec.EllipticCurve) -> list[bytes]:
    point = public_point(ec.generate_private_key(curve))
    size = (len(point) - 1) // 2
    off = point[:-1] + bytes([point[-1] ^ 1])
    other = ec.SECP384R1() if curve.key_size == 256 else ec.SECP256R1()
    return [
        b"",
        b"\0",
        off,
        b"\4" + bytes(2 * size),
        bytes([2 + (point[-1] & 1)]) + point[1 : 1 + size],
        b"\6" + point[1:],
        b"\4" + bytes([len(point)]) + point,
        point + b"\0",
        public_point(ec.generate_private_key(other)),
    ]


@pytest.mark.parametrize("algorithm", ["EC_P256", "EC_P384"])
def test_points_are_validated_before_the_token_sees_them(token: OpenedPool, algorithm: str) -> None:
    made = token.make("agree", algorithm)
    bad = _points(_CURVES[algorithm])
    results = token.call(Agree(made.ref, bad)).items
    assert [r.code for r in results if isinstance(r, Fault)] == ["INVALID_POINT"] * len(bad)


@pytest.mark.parametrize("algorithm", ["RSA_2048", "RSA_3072", "RSA_4096"])
def test_oaep_decrypts_what_pyca_encrypts(token: OpenedPool, algorithm: str) -> None:
    made = token.make("decrypt", algorithm)
    public = load_der_public_key(made.public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(_SHA1), _SHA1, None)
    longest = public.key_size // 8 - 42
    messages = [b"", b"x", bytes(longest)]
    sent = [public.encrypt(message, oaep) for message in messages]
    assert token.call(Decrypt(made.ref, "RSA_OAEP_SHA_1", sent)).items == messages


def test_every_failed_decryption_is_the_same(token: OpenedPool) -> None:
    made = token.make("decrypt", "RSA_2048")
    public = load_der_public_key(made.public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    good = public.encrypt(b"x", padding.OAEP(padding.MGF1(_SHA1), _SHA1, None))
    modulus = public.public_numbers().n.to_bytes(256)
    bad = [
        b"",
        bytes(255),
        bytes(256),
        bytes(257),
        b"\xff" * 256,
        modulus,
        good[:-1],
        good + b"\0",
        good[:-1] + bytes([good[-1] ^ 1]),
        public.encrypt(b"x", padding.PKCS1v15()),
        public.encrypt(b"x", padding.OAEP(padding.MGF1(_SHA1), _SHA1, b"a label")),
        public.encrypt(b"x", padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)),
    ]
    results = token.call(Decrypt(made.ref, "RSA_OAEP_SHA_1", [*bad, good])).items
    assert results[-1] == b"x"
    assert len({repr(r) for r in results[:-1]}) == 1
    assert results[0] == Fault(
        "DECRYPTION_FAILED", "The ciphertext does not decrypt with this key and algorithm."
    )


def test_an_algorithm_that_the_token_lacks_is_said(token: OpenedPool) -> None:
    made = token.make("decrypt", "RSA_2048")
    with pytest.raises(UnsupportedByToken):
        token.call(Decrypt(made.ref, "RSA_OAEP_SHA_256", [bytes(256)]))


@pytest.mark.parametrize("purpose", ["sign", "agree", "decrypt"])
def test_a_key_serves_one_purpose(token: OpenedPool, purpose: str) -> None:
    algorithm = "RSA_2048" if purpose == "decrypt" else "EC_P256"
    ref = token.make(purpose, algorithm).ref
    requests: dict[str, Any] = {
        "sign": Sign(ref, "ECDSA_SHA_256", [bytes(32)]),
        "agree": Agree(ref, [public_point(ec.generate_private_key(ec.SECP256R1()))]),
        "decrypt": Decrypt(ref, "RSA_OAEP_SHA_1", [bytes(256)]),
    }
    del requests[purpose]
    for request in requests.values():
        with pytest.raises(KeyPurpose):
            token.call(request)


@pytest.mark.parametrize(
    ("purpose", "algorithm", "code"),
    [
        ("agree", "ED25519", "INVALID_REQUEST"),
        ("wrap", "EC_P256", "INVALID_REQUEST"),
        ("sign", "AES_256_HMAC_SHA_256", "INVALID_REQUEST"),
        ("decrypt", "EC_P256", "INVALID_REQUEST"),
    ],
)
def test_keys_that_make_no_sense_are_not_made(
    token: OpenedPool, purpose: str, algorithm: str, code: str
) -> None:
    request = CreateVersion("nonsense.v1", bytes(16), purpose, algorithm)
    with pytest.raises(KeycustodyError) as caught:
        token.call(request)
    assert caught.value.code == code


def test_a_label_and_an_id_are_taken_once(token: OpenedPool) -> None:
    ref = token.make("sign", "EC_P256").ref
    for label, id_ in ((ref.label, b"another id 16 by"), ("another.v1", ref.id)):
        request = CreateVersion(label, id_, "sign", "EC_P256")
        with pytest.raises(KeycustodyError, match="already"):
            token.call(request)
