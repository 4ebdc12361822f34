"""One table: every algorithm, what it needs, and its status.

`SIGNATURES` and `DECRYPTIONS` are what a request may name. `KEYS` are what a key may be declared
as. Code asks these tables; nothing is guessed from a key's type or an input's length. A status says
what the algorithm may still be used for, and changing it in its one row is all that it takes:

* `preferred` and `acceptable` may be used for everything. A policy can ask for `preferred`.
* `legacy` verifies, decrypts and unwraps: what exists stays readable. The agent neither signs,
  agrees nor makes a session key with it.
* `forbidden` is served for nothing: settings and policies that name it are refused.

Sources: ECDSA FIPS 186-5, Ed25519 RFC 8032, RSASSA and RSAES-OAEP RFC 8017, AES key wrap RFC 3394.
Statuses: NIST SP 800-57 Part 1 Rev. 5, tables 2 and 4: RSA-2048 has 112 bits of strength, which is
acceptable until the end of 2030; RSA-3072 and P-256 have 128. SP 800-131A Rev. 2, sections 3, 6 and
9: signatures, RSA key transport, and SHA-1, which may sign nothing and which NIST retires from all
else by the end of 2030 (announced on 15 December 2022). RSASSA-PKCS1-v1_5 is approved (FIPS 186-5,
5.4); PSS has the better proof.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from keycustody.errors import UnknownAlgorithm


class Status(StrEnum):
    """How an algorithm may still be used."""

    PREFERRED = "preferred"
    ACCEPTABLE = "acceptable"
    LEGACY = "legacy"
    FORBIDDEN = "forbidden"

    @property
    def protects(self) -> bool:
        """May it protect something new: sign, agree, make a session key?"""
        return self in (Status.PREFERRED, Status.ACCEPTABLE)


class Purpose(StrEnum):
    """The one thing that a key is for."""

    SIGN = "sign"
    AGREE = "agree"
    DECRYPT = "decrypt"
    WRAP = "wrap"


class KeyFamily(StrEnum):
    """What PKCS#11 calls the key type."""

    EC = "EC"
    ED25519 = "ED25519"
    RSA = "RSA"
    AES_WITH_HMAC = "AES_WITH_HMAC"


class Scheme(StrEnum):
    """How a digest or message becomes a signature."""

    ECDSA = "ECDSA"
    EDDSA = "EDDSA"
    RSA_PSS = "RSA_PSS"
    RSA_PKCS1 = "RSA_PKCS1"


@dataclass(frozen=True, slots=True)
class KeyAlgorithm:
    """What a key can be: its family, its size in bits, the curve, and the purposes it may serve."""

    name: str
    family: KeyFamily
    bits: int
    purposes: frozenset[Purpose]
    status: Status
    curve: str | None = None

    @property
    def coordinate_bytes(self) -> int:
        """The length in bytes of one coordinate, and of r and of s in a raw ECDSA signature."""
        return (self.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """What a request may name: `hash` and `digest_bytes` are None and 0 for Ed25519, which signs
    whole messages only."""

    name: str
    scheme: Scheme
    family: KeyFamily
    hash: str | None
    digest_bytes: int
    status: Status
    bits: int | None = None  # only for keys of this size; None: any size of the family


@dataclass(frozen=True, slots=True)
class DecryptionAlgorithm:
    """RSAES-OAEP with one hash for both the label and MGF1, and no label (RFC 8017, 7.1)."""

    name: str
    family: KeyFamily
    hash: str
    status: Status


def _keys() -> dict[str, KeyAlgorithm]:
    ec_purposes = frozenset({Purpose.SIGN, Purpose.AGREE})
    rsa_purposes = frozenset({Purpose.SIGN, Purpose.DECRYPT})
    preferred, acceptable = Status.PREFERRED, Status.ACCEPTABLE
    table = (
        KeyAlgorithm("EC_P256", KeyFamily.EC, 256, ec_purposes, preferred, "secp256r1"),
        KeyAlgorithm("EC_P384", KeyFamily.EC, 384, ec_purposes, preferred, "secp384r1"),
        KeyAlgorithm("ED25519", KeyFamily.ED25519, 256, frozenset({Purpose.SIGN}), preferred),
        KeyAlgorithm("RSA_2048", KeyFamily.RSA, 2048, rsa_purposes, acceptable),
        KeyAlgorithm("RSA_3072", KeyFamily.RSA, 3072, rsa_purposes, preferred),
        KeyAlgorithm("RSA_4096", KeyFamily.RSA, 4096, rsa_purposes, preferred),
        KeyAlgorithm(
            "AES_256_HMAC_SHA_256",
            KeyFamily.AES_WITH_HMAC,
            256,
            frozenset({Purpose.WRAP}),
            preferred,
        ),
    )
    return {entry.name: entry for entry in table}


def _signatures() -> dict[str, SignatureAlgorithm]:
    digests = {"SHA_256": 32, "SHA_384": 48, "SHA_512": 64}
    entries = [
        SignatureAlgorithm("ED25519", Scheme.EDDSA, KeyFamily.ED25519, None, 0, Status.PREFERRED)
    ]
    for bits, hash_name in ((256, "SHA_256"), (384, "SHA_384")):
        entries.append(
            SignatureAlgorithm(
                f"ECDSA_{hash_name}",
                Scheme.ECDSA,
                KeyFamily.EC,
                hash_name,
                digests[hash_name],
                Status.PREFERRED,
                # The hash matches the curve's strength: P-256 with SHA-256, P-384 with SHA-384.
                bits,
            )
        )
    for scheme, status in (
        (Scheme.RSA_PSS, Status.PREFERRED),
        (Scheme.RSA_PKCS1, Status.ACCEPTABLE),
    ):
        entries.extend(
            SignatureAlgorithm(f"{scheme}_{name}", scheme, KeyFamily.RSA, name, size, status)
            for name, size in digests.items()
        )
    return {entry.name: entry for entry in entries}


KEYS: dict[str, KeyAlgorithm] = _keys()
SIGNATURES: dict[str, SignatureAlgorithm] = _signatures()
DECRYPTIONS: dict[str, DecryptionAlgorithm] = {
    entry.name: entry
    for entry in (
        DecryptionAlgorithm("RSA_OAEP_SHA_256", KeyFamily.RSA, "SHA_256", Status.PREFERRED),
        # SHA-1 in OAEP needs no collision resistance (RFC 8017, B.1), and many tokens offer no
        # other: what was sent so stays readable, and nobody should send more of it.
        DecryptionAlgorithm("RSA_OAEP_SHA_1", KeyFamily.RSA, "SHA_1", Status.LEGACY),
    )
}


def signature(name: str) -> SignatureAlgorithm:
    """Return the signature algorithm of that exact name; `UnknownAlgorithm` if there is none."""
    try:
        return SIGNATURES[name]
    except KeyError:
        raise UnknownAlgorithm(_unknown(name, SIGNATURES)) from None


def decryption(name: str) -> DecryptionAlgorithm:
    """Return the decryption algorithm of that exact name; `UnknownAlgorithm` if there is none."""
    try:
        return DECRYPTIONS[name]
    except KeyError:
        raise UnknownAlgorithm(_unknown(name, DECRYPTIONS)) from None


def fits(algorithm: SignatureAlgorithm, key: KeyAlgorithm) -> bool:
    """Can a `sign` key of this algorithm make such signatures?"""
    return algorithm.family is key.family and algorithm.bits in (None, key.bits)


def signatures_for(key: KeyAlgorithm) -> tuple[SignatureAlgorithm, ...]:
    """Return what a `sign` key of this algorithm can make, the default first."""
    return tuple(entry for entry in SIGNATURES.values() if fits(entry, key))


def _unknown(name: str, table: Iterable[str]) -> str:
    known = ", ".join(sorted(table))
    return f"Algorithm {name[:64]!r} is not known; name one of {known}."
