"""Signed notes: the example of the specification, both kinds of keys, and every way to be wrong."""

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from keycustody.errors import InvalidRequest, InvalidSignature
from keycustody.formats import signed_note
from keycustody.formats.signed_note import VerifierKey

TEXT = "keycustody.audit.v1\n7\n"
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ECDSA = ec.derive_private_key(7, ec.SECP256R1())


def der(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, text: str) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(text.encode())
    return key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))


KEYS: dict[str, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey] = {
    "Ed25519": ED25519,
    "ECDSA": ECDSA,
}
NOTES = {
    kind: (
        verifier := VerifierKey.of("keycustody/audit", der(key)),
        signed_note.join(TEXT, verifier, sign(key, TEXT)),
    )
    for kind, key in KEYS.items()
}
VERIFIER, NOTE = NOTES["Ed25519"]


#: golang.org/x/mod/sumdb/note's own example: another program's key and note.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngo"
    "tpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_that_another_program_signed() -> None:
    key = VerifierKey.decode(PETER)
    assert key.encode() == PETER
    assert signed_note.verified(PETERS, [key]).endswith("problem is.\n")


@pytest.mark.parametrize("kind", KEYS)
def test_a_note_comes_back(kind: str) -> None:
    verifier, note = NOTES[kind]
    assert VerifierKey.decode(verifier.encode()) == verifier
    assert signed_note.verified(note, [verifier]) == signed_note.text_of(note) == TEXT
    assert signed_note.verified(note, [VERIFIER, NOTES["ECDSA"][0]]) == TEXT


@pytest.mark.parametrize("kind", KEYS)
def test_openssl_checks_it_too(kind: str, tmp_path: Path) -> None:
    note = NOTES[kind][1]
    text, _, line = note.rpartition("\n\n")
    (tmp_path / "text").write_text(text + "\n")
    (tmp_path / "signature").write_bytes(base64.b64decode(line.split(" ")[2])[4:])
    (tmp_path / "key").write_bytes(der(KEYS[kind]))
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"]
    if kind == "ECDSA":
        command += ["-digest", "sha256"]
    files = ["-inkey", "key", "-sigfile", "signature", "-in", "text"]
    done = subprocess.run([*command, *files], cwd=tmp_path, check=False, capture_output=True)
    assert done.stdout.decode().strip() == "Signature Verified Successfully", done.stderr


def changed(old: str, new: str) -> str:
    assert old in NOTE
    return NOTE.replace(old, new, 1)


WRONG = {
    "an edited text": changed("7", "8"),
    "another name": changed("keycustody/audit ", "keycustody/other "),
    "no signature": TEXT + "\n",
    "no blank line": changed("\n\n", "\n"),
    "no last line end": NOTE[:-1],
    "a control character": changed("7", "7\t"),
    "a hyphen for the dash": changed("\u2014", "-"),
    "base64 with another tail": changed("=\n", "\n"),
    "too short a signature": f"{TEXT}\n\u2014 keycustody/audit AAAAAA==\n",
    "nothing": "",
    "too large": "x" * signed_note.MAX_BYTES + NOTE,
    "too many signatures": NOTE + NOTE.rpartition("\n\n")[2] * 16,
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_notes_are_refused(what: str) -> None:
    with pytest.raises(InvalidSignature):
        signed_note.verified(WRONG[what], [VERIFIER])


def test_a_signature_of_an_unknown_key_counts_nothing_and_a_wrong_one_of_a_known_key_all() -> None:
    other = VerifierKey.of("keycustody/audit", der(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(InvalidSignature, match="not signed by a key"):
        signed_note.verified(NOTE, [other])
    bad = base64.b64encode(VERIFIER.id + bytes(64)).decode()
    with pytest.raises(InvalidSignature, match="does not verify"):
        signed_note.verified(f"{NOTE}\u2014 {VERIFIER.name} {bad}\n", [VERIFIER])
    two = f"{NOTE}\u2014 {other.name} {base64.b64encode(other.id + bytes(64)).decode()}\n"
    assert signed_note.verified(two, [VERIFIER]) == TEXT


@pytest.mark.parametrize(
    "line",
    [
        "",
        "name",
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER.replace("PeterNeumann", "Peter Neumann"),
        PETER.replace("+AR", "+BR"),
        PETER[:-4],
        PETER + "\n",
        "n+00000000+Ag==",
    ],
)
def test_wrong_verifier_keys_are_refused(line: str) -> None:
    with pytest.raises(InvalidRequest):
        VerifierKey.decode(line)


@given(st.text())
def test_noise_is_refused(text: str) -> None:
    with pytest.raises(InvalidSignature):
        signed_note.verified(text, [VERIFIER])
    with pytest.raises(InvalidRequest):
        VerifierKey.decode(text)
