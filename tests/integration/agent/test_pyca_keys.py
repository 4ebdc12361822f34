"""Keys in the token, used by libraries that know nothing of us."""

import datetime
import subprocess
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.x509.oid import NameOID

import keycustody
from keycustody.errors import KeyPurpose

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keycustody test")])


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("release", hashes.SHA256()),
        ("p384", hashes.SHA384()),
        ("tokens", None),
        ("archive", hashes.SHA256()),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA-3072"],
)
def test_x509_request_and_certificate_are_verified_by_openssl(
    agent: keycustody.Agent, tmp_path: Path, name: str, digest: hashes.SHA256 | hashes.SHA384 | None
) -> None:
    key = agent.private_key(name)
    request = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(key, digest)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, digest)
    )
    request_file, certificate_file = tmp_path / "request.pem", tmp_path / "certificate.pem"
    request_file.write_bytes(request.public_bytes(serialization.Encoding.PEM))
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    assert "verify OK" in openssl("req", "-in", request_file, "-noout", "-verify")
    verified = openssl("verify", "-check_ss_sig", "-CAfile", certificate_file, certificate_file)
    assert verified == f"{certificate_file}: OK\n"


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("release", "ES256"),
        ("p384", "ES384"),
        ("tokens", "EdDSA"),
        ("archive", "RS256"),
        ("archive", "PS256"),
    ],
)
def test_pyjwt_token(agent: keycustody.Agent, name: str, algorithm: str) -> None:
    key = agent.private_key(name)
    token = jwt.encode({"sub": "alice"}, key, algorithm=algorithm)
    public = agent.public_key(name)
    assert jwt.decode(token, public, algorithms=[algorithm]) == {"sub": "alice"}


def test_hpke_opens_with_the_private_key_in_the_token(agent: keycustody.Agent) -> None:
    suite = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
    key = agent.private_key("hpke")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    sealed = suite.encrypt(b"to the token", key.public_key(), b"info")
    assert suite.decrypt(sealed, key, b"info") == b"to the token"


def test_rsa_oaep(agent: keycustody.Agent) -> None:
    key = agent.private_key("mail")
    assert isinstance(key, rsa.RSAPrivateKey)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303
    assert key.decrypt(key.public_key().encrypt(b"secret", oaep), oaep) == b"secret"


def test_ecdh_agrees_with_the_peer(agent: keycustody.Agent) -> None:
    key = agent.private_key("hpke")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    peer = ec.generate_private_key(ec.SECP256R1())
    assert key.exchange(ec.ECDH(), peer.public_key()) == peer.exchange(ec.ECDH(), key.public_key())


def test_a_key_serves_its_one_purpose(agent: keycustody.Agent) -> None:
    signing, agreeing = agent.private_key("release"), agent.private_key("hpke")
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    assert isinstance(agreeing, ec.EllipticCurvePrivateKey)
    peer = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(KeyPurpose):
        signing.exchange(ec.ECDH(), peer)
    with pytest.raises(KeyPurpose):
        agreeing.sign(b"", ec.ECDSA(hashes.SHA256()))
