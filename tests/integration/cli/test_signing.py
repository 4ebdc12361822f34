"""Signatures by the real command, verified by openssl and by ourselves."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from jwt import PyJWK

from tests.integration.command import Command, refused

DATA = b"what is signed\n" * 1000

#: Key, algorithm (None: the key's default), and how openssl verifies it.
KINDS = [
    ("release", None, ["dgst", "-sha256"]),
    ("p384", None, ["dgst", "-sha384"]),
    ("archive", None, ["dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss"]),
    ("archive", "RSA_PSS_SHA_384", ["dgst", "-sha384", "-sigopt", "rsa_padding_mode:pss"]),
    ("archive", "RSA_PKCS1_SHA_512", ["dgst", "-sha512"]),
    ("rsa2048", "RSA_PKCS1_SHA_256", ["dgst", "-sha256"]),
    ("rsa4096", "RSA_PSS_SHA_512", ["dgst", "-sha512", "-sigopt", "rsa_padding_mode:pss"]),
]


def openssl(*arguments: str | Path) -> str:
    """Run openssl, which must succeed."""
    done = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A file to sign."""
    file = tmp_path / "data"
    file.write_bytes(DATA)
    return file


@pytest.mark.parametrize(
    ("key", "algorithm", "verify"), KINDS, ids=[f"{kind[0]}-{kind[1]}" for kind in KINDS]
)
def test_openssl_verifies(
    keycustody: Command, signed: Path, key: str, algorithm: str | None, verify: list[str]
) -> None:
    signature, pem = signed.with_suffix(".sig"), signed.with_suffix(".pem")
    chosen = ["--algorithm", algorithm] if algorithm else []

    keycustody.ok("sign", key, signed, "-o", signature, *chosen)
    pem.write_bytes(keycustody.ok("keys", "show", key, "--pem"))

    openssl(*verify, "-verify", pem, "-signature", signature, signed)
    keycustody.ok("verify", key, signed, signature, *chosen)
    keycustody.ok("verify", "--public-key", pem, signed, signature, *chosen)


def test_openssl_verifies_ed25519(keycustody: Command, signed: Path) -> None:
    signature, pem = signed.with_suffix(".sig"), signed.with_suffix(".pem")

    keycustody.ok("sign", "tokens", signed, "-o", signature)
    pem.write_bytes(keycustody.ok("keys", "show", "tokens", "--pem"))

    openssl(
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        pem,
        "-rawin",
        "-in",
        signed,
        "-sigfile",
        signature,
    )
    keycustody.ok("verify", "tokens", signed, signature)


def test_pipes_and_raw(keycustody: Command, signed: Path) -> None:
    signature = signed.with_suffix(".sig")

    signature.write_bytes(keycustody.ok("sign", "release", "-", "-o", "-", "--raw", stdin=DATA))

    assert len(signature.read_bytes()) == 64
    keycustody.ok("verify", "release", "-", signature, "--raw", stdin=DATA)
    keycustody.ok("verify", "release", signed, "-", "--raw", stdin=signature.read_bytes())


def test_other_data_is_refused_with_status_3(keycustody: Command, signed: Path) -> None:
    signature = signed.with_suffix(".sig")
    keycustody.ok("sign", "release", signed, "-o", signature)

    done = keycustody("verify", "release", "-", signature, stdin=DATA + b".")

    refused(done, "INVALID_SIGNATURE")
    assert done.returncode == 3


@pytest.mark.parametrize("key", ["release", "p384", "tokens", "archive", "hpke", "mail"])
def test_show_prints_one_key_in_three_ways(keycustody: Command, key: str, tmp_path: Path) -> None:
    pem = tmp_path / "pem"
    pem.write_bytes(keycustody.ok("keys", "show", key, "--pem"))
    jwk = keycustody.ok("keys", "show", key, "--jwk")
    table = keycustody.ok("keys", "show", key)

    algorithm = {"EC": "ES256", "OKP": "EdDSA", "RSA": "RS256"}[json.loads(jwk)["kty"]]
    if json.loads(jwk).get("crv") == "P-384":
        algorithm = "ES384"
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    assert PyJWK.from_json(jwk.decode(), algorithm).key == load_pem_public_key(pem.read_bytes())
    der = base64.b64decode(b"".join(pem.read_bytes().split(b"\n")[1:-2]))
    import hashlib

    assert hashlib.sha256(der).hexdigest().encode() in table


def test_a_wrap_key_has_no_public_half(keycustody: Command) -> None:
    assert b"wrap" in keycustody.ok("keys", "show", "invoices")
    refused(keycustody("keys", "show", "invoices", "--pem"), "KEY_PURPOSE")
    refused(keycustody("keys", "show", "invoices", "--jwk"), "KEY_PURPOSE")


def test_list_is_plain_text_that_awk_reads(keycustody: Command) -> None:
    lines = keycustody.ok("keys", "list").decode().splitlines()

    assert lines[0].split() == ["NAME", "PURPOSE", "ALGORITHM", "VERSIONS"]
    keys = {line.split()[0]: line.split()[1:3] for line in lines[1:]}
    assert keys["release"] == ["sign", "EC_P256"]
    assert keys["invoices"] == ["wrap", "AES_256_HMAC_SHA_256"]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("key", ["release", "p384", "tokens", "archive", "rsa4096"])
def test_openssl_checks_a_signing_request(keycustody: Command, key: str, tmp_path: Path) -> None:
    csr = tmp_path / "csr"
    keycustody.ok(
        "keys",
        "csr",
        key,
        "--subject",
        "CN=a.example,O=Example",
        "--dns",
        "a.example",
        "--dns",
        "b.example",
        "-o",
        csr,
    )

    told = openssl("req", "-in", csr, "-verify", "-noout", "-text")

    assert "DNS:a.example, DNS:b.example" in told
    assert "CN = a.example" in told or "CN=a.example" in told


def test_a_request_with_pss(keycustody: Command, tmp_path: Path) -> None:
    csr = tmp_path / "csr"
    csr.write_bytes(
        keycustody.ok(
            "keys", "csr", "archive", "--subject", "CN=a", "--algorithm", "RSA_PSS_SHA_256"
        )
    )

    assert "rsassaPss" in openssl("req", "-in", csr, "-verify", "-noout", "-text")
