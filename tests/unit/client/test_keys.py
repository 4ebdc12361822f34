"""Token keys behave as pyca's do, and things that know nothing of us take them."""

import copy
import pickle
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed
from cryptography.x509.oid import NameOID

import keycustody
from keycustody import errors
from tests.unit.client.agent_double import AgentDouble

SHA256 = hashes.SHA256()
ECDSA = ec.ECDSA(SHA256)
PSS = padding.PSS(padding.MGF1(SHA256), padding.PSS.DIGEST_LENGTH)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keycustody")])


@pytest.mark.parametrize("name", ["release", "tokens", "code"])
def test_a_csr_is_signed_by_the_token(agent: keycustody.Agent, name: str) -> None:
    key: Any = agent.private_key(name)
    algorithm = None if name == "tokens" else SHA256
    csr = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(key, algorithm)
    assert csr.is_signature_valid
    assert csr.public_key() == agent.public_key(name)


def test_pyjwt_takes_it(agent: keycustody.Agent) -> None:
    key: Any = agent.private_key("release")
    token = jwt.encode({"sub": "42"}, key, algorithm="ES256")
    public: Any = agent.public_key("release")
    assert jwt.decode(token, public, algorithms=["ES256"]) == {"sub": "42"}


def test_hpke_takes_it(agent: keycustody.Agent) -> None:
    suite = hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
    public: Any = agent.public_key("hpke")
    key: Any = agent.private_key("hpke")
    assert suite.decrypt(suite.encrypt(b"message", public), key) == b"message"


def test_kinds_and_sizes(agent: keycustody.Agent) -> None:
    ec_key, ed_key, rsa_key = (agent.private_key(name) for name in ("release", "tokens", "code"))
    assert isinstance(ec_key, ec.EllipticCurvePrivateKey)
    assert isinstance(ed_key, ed25519.Ed25519PrivateKey)
    assert isinstance(rsa_key, rsa.RSAPrivateKey)
    assert (ec_key.curve.name, ec_key.key_size, rsa_key.key_size) == ("secp256r1", 256, 2048)


@pytest.mark.parametrize("name", ["release", "tokens", "code", "hpke", "mail"])
def test_the_private_half_cannot_be_had(agent: keycustody.Agent, name: str) -> None:
    key: Any = agent.private_key(name)
    with pytest.raises(UnsupportedAlgorithm, match="stays in its token"):
        key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    with pytest.raises(errors.KeyPurpose):
        key.private_numbers()
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(key)
    assert copy.copy(key) is copy.deepcopy(key) is key
    assert repr(key).endswith("version 1, in the token>")


@pytest.mark.parametrize("size", [0, 1024 * 1024, 1024 * 1024 + 1])
def test_ecdsa_over_any_size(agent: keycustody.Agent, double: AgentDouble, size: int) -> None:
    key: Any = agent.private_key("release")
    key.public_key().verify(key.sign(bytes(size), ECDSA), bytes(size), ECDSA)
    item = double.calls[-1][1].items[0]
    # Whole as long as that fits, so that the agent knows what it signs.
    assert item.WhichOneof("input") == ("message" if size <= 1024 * 1024 else "digest")


def test_a_key_that_takes_no_digest_gets_whole_messages(agent: keycustody.Agent) -> None:
    key: Any = agent.private_key("strict")
    with pytest.raises(errors.MessageTooLarge):
        key.sign(bytes(1024 * 1024 + 1), ECDSA)


def test_prehashed(agent: keycustody.Agent, double: AgentDouble) -> None:
    key: Any = agent.private_key("release")
    hasher = hashes.Hash(SHA256)
    hasher.update(b"m")
    signature = key.sign(hasher.finalize(), ec.ECDSA(Prehashed(SHA256)))
    key.public_key().verify(signature, b"m", ECDSA)
    before = len(double.calls)
    with pytest.raises(errors.DigestLength, match="32 bytes"):
        key.sign(b"short", ec.ECDSA(Prehashed(SHA256)))
    assert len(double.calls) == before


@pytest.mark.parametrize("salt", [padding.PSS.DIGEST_LENGTH, 32], ids=["name", "number"])
def test_rsa_signatures(agent: keycustody.Agent, salt: Any) -> None:
    key: Any = agent.private_key("code")
    pss = padding.PSS(padding.MGF1(SHA256), salt)
    for chosen in (pss, padding.PKCS1v15()):
        key.public_key().verify(key.sign(b"m", chosen, SHA256), b"m", chosen, SHA256)


@pytest.mark.parametrize("name", ["sha256", "sha1"])
def test_rsa_decryption(agent: keycustody.Agent, name: str) -> None:
    key: Any = agent.private_key("mail")
    digest: Any = SHA256 if name == "sha256" else hashes.SHA1()  # noqa: S303
    oaep = padding.OAEP(padding.MGF1(digest), digest, None)
    assert key.decrypt(key.public_key().encrypt(b"m", oaep), oaep) == b"m"
    with pytest.raises(ValueError, match="does not decrypt") as caught:
        key.decrypt(bytes(256), oaep)
    assert isinstance(caught.value, errors.DecryptionFailed)


def _oaep(outer: Any, inner: Any, label: bytes | None = None) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(inner), outer, label)


REFUSED: dict[str, tuple[str, Any]] = {
    "hash of another curve": ("release", lambda key: key.sign(b"", ec.ECDSA(hashes.SHA384()))),
    "hash we do not sign": ("release", lambda key: key.sign(b"", ec.ECDSA(hashes.SHA224()))),
    "deterministic": (
        "release",
        lambda key: key.sign(b"", ec.ECDSA(SHA256, deterministic_signing=True)),
    ),
    "hash not listed": ("code", lambda key: key.sign(b"", padding.PKCS1v15(), hashes.SHA512())),
    "salt": (
        "code",
        lambda key: key.sign(
            b"", padding.PSS(padding.MGF1(SHA256), padding.PSS.MAX_LENGTH), SHA256
        ),
    ),
    "auto salt": (
        "code",
        lambda key: key.sign(b"", padding.PSS(padding.MGF1(SHA256), padding.PSS.AUTO), SHA256),
    ),
    "mgf1 hash": ("code", lambda key: key.sign(b"", PSS, hashes.SHA384())),
    "raw rsa": ("code", lambda key: key.sign(b"", padding.PKCS1v15(), NoDigestInfo())),
    "pkcs1 decryption": ("mail", lambda key: key.decrypt(b"", padding.PKCS1v15())),
    "oaep hashes": ("mail", lambda key: key.decrypt(b"", _oaep(SHA256, hashes.SHA384()))),
    "oaep label": ("mail", lambda key: key.decrypt(b"", _oaep(SHA256, SHA256, b"label"))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_nothing_is_guessed(agent: keycustody.Agent, double: AgentDouble, what: str) -> None:
    name, operation = REFUSED[what]
    key = agent.private_key(name)
    before = len(double.calls)
    with pytest.raises(UnsupportedAlgorithm) as caught:
        operation(key)
    assert isinstance(caught.value, errors.AlgorithmMismatch)
    assert len(double.calls) == before


def test_purposes(agent: keycustody.Agent) -> None:
    peer = ec.generate_private_key(ec.SECP256R1()).public_key()
    names = ("release", "hpke", "mail", "code")
    keys: list[Any] = [agent.private_key(name) for name in names]
    release, agreeing, mail, code = keys
    misuses: list[Any] = [
        lambda: release.exchange(ec.ECDH(), peer),
        lambda: agreeing.sign(b"", ECDSA),
        lambda: mail.sign(b"", PSS, SHA256),
        lambda: code.decrypt(b"", _oaep(SHA256, SHA256)),
        lambda: agent.private_key("invoices"),
    ]
    for misuse in misuses:
        with pytest.raises(errors.KeyPurpose):
            misuse()


def test_a_peer_on_another_curve(agent: keycustody.Agent) -> None:
    key: Any = agent.private_key("hpke")
    peer = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(errors.InvalidPoint, match="secp256r1"):
        key.exchange(ec.ECDH(), peer)
