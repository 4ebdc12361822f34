"""What each kind of module can do, and which mechanism serves each flow.

Code asks a `Profile`, never a vendor's name. One module of this package is one profile; what stands
in it was run against that module (docs/tokens.md says which version). Mechanism names are PKCS#11's
without `CKM_`, attribute names without `CKA_`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module

from keycustody.algorithms import KEYS, SIGNATURES, KeyFamily, Purpose, Scheme
from keycustody.token.remedies import Remedy

#: The numbers of the mechanisms that a key may be limited to (PKCS#11 v3.1, header file).
_NUMBERS = {
    "RSA_PKCS": 0x00000001,
    "RSA_PKCS_OAEP": 0x00000009,
    "RSA_PKCS_PSS": 0x0000000D,
    "SHA256_HMAC": 0x00000251,
    "ECDSA": 0x00001041,
    "ECDH1_DERIVE": 0x00001050,
    "EDDSA": 0x00001057,
    "AES_KEY_WRAP": 0x00002109,
}

NAMES = ("softhsm2", "nss", "opencryptoki", "tpm2_pkcs11", "p11_kit_remote")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one kind of PKCS#11 module can do. A mechanism of None means: not on this module."""

    name: str
    #: One sentence for `status` and the docs.
    description: str
    #: Key algorithms (`keycustody.algorithms.KEYS`) that the module generates as we need them.
    keys: frozenset[str]
    #: Scheme to mechanism.
    schemes: Mapping[Scheme, str]
    #: RSA-OAEP, and the names in `keycustody.algorithms.DECRYPTIONS` that it is good for.
    oaep: str | None = None
    decryptions: frozenset[str] = frozenset()
    agree: str | None = None
    #: Session keys: AES key wrap and HMAC, both needed.
    wrap: str | None = None
    mac: str | None = None
    #: Deriving the transport key from the ECDH result; None: session keys cannot be sealed.
    seal: str | None = None
    #: Attributes that the module does not know: neither set nor checked. Each weakens a guarantee.
    unknown_attributes: frozenset[str] = field(default_factory=frozenset)
    #: The same, on public keys only: there the module decides by itself what it says.
    unknown_public_attributes: frozenset[str] = field(default_factory=frozenset)
    #: Attributes that are set when a key is made and must never be asked for: not checked.
    unreadable_attributes: frozenset[str] = field(default_factory=frozenset)
    #: What is done about codes that this kind of module uses in its own way.
    remedies: Mapping[str, Remedy] = field(default_factory=dict)
    #: Seconds that a module may take for what is usually quick (`keycustody.token.ceilings`).
    attempt_seconds: float = 2.0
    #: Private `CKO_DATA` objects: states of keys live there.
    data_objects: bool = True
    #: `CKF_USER_PIN_COUNT_LOW` is there from a wrong PIN to the next right one, for every process.
    shows_wrong_pins: bool = False
    #: What is weaker than on a token that does all we ask: whole sentences, for the operator.
    weaker: tuple[str, ...] = ()

    def sets(self, kind: str, attribute: str) -> bool:
        """Is the attribute given when an object ("private", "public", ...) is made?"""
        unknown = self.unknown_attributes
        if kind == "public":
            unknown |= self.unknown_public_attributes
        return attribute not in unknown

    def shows(self, kind: str, attribute: str) -> bool:
        """Does the module tell the truth about it when asked, so that it is checked?"""
        return self.sets(kind, attribute) and attribute not in self.unreadable_attributes

    def serves(self, purpose: Purpose, algorithm: str) -> bool:
        """Can a key of that algorithm be made and used for that purpose?"""
        if algorithm not in self.keys:
            return False
        match purpose:
            case Purpose.SIGN:
                return any(self.sign_mechanisms(KEYS[algorithm].family))
            case Purpose.AGREE:
                return self.agree is not None
            case Purpose.DECRYPT:
                return self.oaep is not None and bool(self.decryptions)
            case Purpose.WRAP:
                return self.wrap is not None and self.mac is not None

    def sign_mechanisms(self, family: KeyFamily) -> Iterator[str]:
        """Yield the mechanisms that a signing key of this family may use."""
        for algorithm in SIGNATURES.values():
            if algorithm.family is family and algorithm.scheme in self.schemes:
                yield self.schemes[algorithm.scheme]

    def signatures(self) -> frozenset[str]:
        """Return the names of the signature algorithms that the module can serve."""
        return frozenset(
            name for name, algorithm in SIGNATURES.items() if algorithm.scheme in self.schemes
        )

    @property
    def sealed_delivery(self) -> bool:
        """Can the token seal a session key to a client's public key?"""
        return self.agree is not None and self.seal is not None

    @staticmethod
    def mechanism_number(name: str) -> int:
        """Return the CKM_ value of a mechanism that a key may be limited to."""
        return _NUMBERS[name]


def load(name: str) -> Profile:
    """Return the profile of that name, one of `NAMES`."""
    if name not in NAMES:
        raise KeyError(name)
    profile: Profile = import_module(f"{__name__}.{name}").PROFILE
    return profile
