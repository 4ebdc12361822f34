"""Signed notes: a text, a blank line, and signatures (https://c2sp.org/signed-note).

Two of its signature types: Ed25519 (0x01), and ECDSA with SHA-256 (0x02) as
github.com/transparency-dev/formats has it: an ASN.1 signature, and a key id that is the hash of the
SubjectPublicKeyInfo alone. `cryptography` verifies; nothing is signed here, because the key is on a
token.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import exceptions
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from keycustody.errors import InvalidRequest, InvalidSignature

MAX_BYTES = 64 * 1024
MAX_SIGNATURES = 16

_ED25519, _ECDSA = 1, 2
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")
_SIGNATURE = re.compile(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_VKEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key, and the name under which it signs."""

    name: str
    key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

    @classmethod
    def of(cls, name: str, public_key: bytes) -> "VerifierKey":
        """Return the key of a DER SubjectPublicKeyInfo; `InvalidRequest` for another kind."""
        try:
            key = load_der_public_key(public_key)
        except ValueError as error:
            raise InvalidRequest("This is no public key.") from error
        if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
            raise InvalidRequest("Notes are signed with Ed25519 or ECDSA keys.")
        return cls(name, key)

    @classmethod
    def decode(cls, text: str) -> "VerifierKey":
        """Return the key of a line `name+id+base64(type || key)`. Raises `InvalidRequest`."""
        match = _VKEY.fullmatch(text)
        encoded = _decoded(match[3]) if match else None
        if match is None or not encoded:
            raise InvalidRequest("A verifier key is NAME+ID+BASE64 (https://c2sp.org/signed-note).")
        kind, public = encoded[0], encoded[1:]
        try:
            if kind == _ED25519:
                key = cls(match[1], ed25519.Ed25519PublicKey.from_public_bytes(public))
            elif kind == _ECDSA:
                key = cls.of(match[1], public)
            else:
                raise InvalidRequest(f"Verifier keys of type {kind} are not known.")
        except ValueError as error:
            raise InvalidRequest("The verifier key holds no public key.") from error
        if key.encode() != text:
            raise InvalidRequest("The verifier key's parts do not fit each other.")
        return key

    def encode(self) -> str:
        """Return the line `name+id+base64(type || key)`."""
        public = base64.b64encode(bytes([self._kind]) + self._public()).decode("ascii")
        return f"{self.name}+{self.id.hex()}+{public}"

    @property
    def id(self) -> bytes:
        """The four bytes that begin each of its signatures."""
        public = self._public()
        if self._kind == _ED25519:
            public = self.name.encode() + b"\n" + bytes([_ED25519]) + public
        return hashlib.sha256(public).digest()[:4]

    def verifies(self, signature: bytes, text: bytes) -> bool:
        """Did this key sign that text?"""
        try:
            if isinstance(self.key, ed25519.Ed25519PublicKey):
                self.key.verify(signature, text)
            else:
                self.key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
        except exceptions.InvalidSignature:
            return False
        return True

    @property
    def _kind(self) -> int:
        return _ED25519 if isinstance(self.key, ed25519.Ed25519PublicKey) else _ECDSA

    def _public(self) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PublicKey):
            return self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def join(text: str, key: VerifierKey, signature: bytes) -> str:
    """Return the note of a text, which ends in a newline, and its signature by that key."""
    encoded = base64.b64encode(key.id + signature).decode("ascii")
    return f"{text}\n\u2014 {key.name} {encoded}\n"


def text_of(note: str) -> str:
    """Return a note's text, **which nothing vouches for**. Raises `InvalidSignature`."""
    return _split(note)[0]


def verified(note: str, keys: Iterable[VerifierKey]) -> str:
    """Return a note's text if a known key signed it, and no signature of a known key is wrong.

    Raises `InvalidSignature`.
    """
    text, signatures = _split(note)
    known = {(key.name, key.id): key for key in keys}
    signed = False
    for name, signature in signatures:
        key = known.get((name, signature[:4]))
        if key is None:
            continue
        if not key.verifies(signature[4:], text.encode()):
            raise InvalidSignature(f"The note's signature by {name} does not verify.")
        signed = True
    if not signed:
        raise InvalidSignature("The note is not signed by a key that was given.")
    return text


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    text, blank, lines = note.rpartition("\n\n")
    if not blank or len(note) > MAX_BYTES or _CONTROL.search(note) or not note.endswith("\n"):
        raise InvalidSignature("This is not a signed note.")
    signatures = []
    for line in lines.removesuffix("\n").split("\n"):
        match = _SIGNATURE.fullmatch(line)
        signature = _decoded(match[2]) if match else None
        if match is None or signature is None or len(signature) <= 4:
            raise InvalidSignature("The note has a signature line that is none.")
        signatures.append((match[1], signature))
    if len(signatures) > MAX_SIGNATURES:
        raise InvalidSignature("The note has too many signatures.")
    return text + "\n", signatures


def _decoded(text: str) -> bytes | None:
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return decoded if base64.b64encode(decoded).decode("ascii") == text else None
