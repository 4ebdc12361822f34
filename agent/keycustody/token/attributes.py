"""The attributes of our keys: one table that generation sets and every load checks.

PKCS#11 attribute names are without `CKA_`, mechanisms without `CKM_`. `objects_of` says which
objects one version has and what each must look like; `weaknesses` compares a found object with
that. docs/adr/0007 and PKCS#11 v3.1 sections 4.4 to 4.10 are the source. What a profile says the
module does not know is neither set nor checked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keycustody.algorithms import KEYS, KeyFamily, Purpose
from keycustody.token.api import AttributeValue, FoundObject, KeyRef
from keycustody.token.profiles import Profile

#: Label prefix of the agent's own keys. No key name can hold a colon (docs/format.md, 1), so no
#: request, grant or glob can name them.
RESERVED = "keycustody:"
DELIVERY_NAME = f"{RESERVED}delivery"
AUDIT_NAME = f"{RESERVED}audit"
SENTINEL_LABEL = f"{RESERVED}sentinel"
SENTINEL_APPLICATION = "keycustody.sentinel.v1"
STATE_APPLICATION = "keycustody.state.v1"

_USES = ("ENCRYPT", "DECRYPT", "SIGN", "VERIFY", "WRAP", "UNWRAP", "DERIVE")
_USES_OF_KIND = {
    "private": ("DECRYPT", "SIGN", "UNWRAP", "DERIVE"),
    "public": ("ENCRYPT", "VERIFY", "WRAP"),
    "secret": _USES,
}


@dataclass(frozen=True, slots=True)
class KeyObject:
    """One PKCS#11 object of a version: what is set when it is made, and what it must show then."""

    kind: str
    key_type: str
    set: Mapping[str, AttributeValue]
    shown: Mapping[str, AttributeValue]

    def expected(self) -> dict[str, AttributeValue]:
        """Everything that a found object must show."""
        return {"KEY_TYPE": self.key_type, **self.shown}


def objects_of(purpose: str, algorithm: str, profile: Profile) -> tuple[KeyObject, ...]:
    """Return the objects of one version, for that purpose and algorithm, on that kind of token."""
    key = KEYS[algorithm]
    match Purpose(purpose):
        case Purpose.WRAP:
            return (
                _secret("AES", {"WRAP", "UNWRAP"}, (profile.wrap,), profile),
                _secret("GENERIC_SECRET", {"SIGN", "VERIFY"}, (profile.mac,), profile),
            )
        case Purpose.SIGN:
            mechanisms = tuple(dict.fromkeys(profile.sign_mechanisms(key.family)))
            return _pair(key.family, "SIGN", "VERIFY", mechanisms, profile)
        case Purpose.DECRYPT:
            return _pair(key.family, "DECRYPT", "ENCRYPT", (profile.oaep,), profile)
        case Purpose.AGREE:
            return _pair(key.family, "DERIVE", None, (profile.agree,), profile)


@dataclass(frozen=True, slots=True)
class Weakness:
    """One attribute of a found object that is not what it must be."""

    name: str
    actual: AttributeValue
    wanted: AttributeValue

    @property
    def recorded(self) -> str:
        """How a state record names it: only exactly this is accepted of an adopted key."""
        return f"{self.name}={json.dumps(self.actual)}"

    def __str__(self) -> str:
        return f"CKA_{self.name} is {_shown(self.actual)}, must be {_shown(self.wanted)}"


def weaknesses(wanted: KeyObject, found: FoundObject) -> list[Weakness]:
    """Say where a found object differs from what it must be; empty if nowhere."""
    findings = []
    for name, value in wanted.expected().items():
        actual = found.attributes.get(name)
        if name == "ALLOWED_MECHANISMS" and isinstance(actual, list):
            actual = sorted(actual)
        if actual != value:
            findings.append(Weakness(name, actual, value))
    return findings


def amiss(wanted: Sequence[KeyObject], id_: bytes, found: Sequence[FoundObject]) -> list[str]:
    """Say why the objects found under one label are not exactly the wanted ones; empty if they are.

    Exactly one object for each wanted one, all with this `CKA_ID`, none besides, no weakness. A
    whole version with another `CKA_ID` is no reason: two agents that make one version at once leave
    two for a moment, and which of them counts is told by their records (docs/lifecycle.md).
    """
    sets = by_id(found)
    others = [
        one
        for other, objects in sets.items()
        if other != id_ and _unfit(wanted, other, objects)
        for one in objects
    ]
    return _unfit(wanted, id_, [*sets.get(id_, ()), *others])


def merely_weaker(reasons: Sequence[str]) -> bool:
    """Do these reasons of `amiss` name attributes alone: is it the right set, only weaker?"""
    return all(": CKA_" in reason for reason in reasons)


def unaccepted(
    purpose: str, algorithm: str, ref: KeyRef, found: Sequence[FoundObject], profile: Profile
) -> list[str]:
    """Say why private objects are not the adopted key that a reference names; empty if they are.

    Exactly one private object with this `CKA_ID` and its own label, and no weakness but those that
    were recorded when it was adopted. Its public key is in the record: public objects prove
    nothing.
    """
    assert ref.adopted is not None
    wanted = private_object(purpose, algorithm, profile)
    own = [one for one in found if one.kind == "private" and one.id == ref.id]
    if len(own) != 1:
        return [f"there are {len(own)} private objects with its CKA_ID, must be 1"]
    findings = [
        f"{wanted.kind} {wanted.key_type}: {weakness}"
        for weakness in weaknesses(wanted, own[0])
        if weakness.recorded not in ref.adopted.weaker
    ]
    if own[0].label != ref.adopted.label:
        findings.append(f"it is labelled {own[0].label!r}, must be {ref.adopted.label!r}")
    return findings


def private_object(purpose: str, algorithm: str, profile: Profile) -> KeyObject:
    """Return what the private object of a key pair must look like."""
    return next(one for one in objects_of(purpose, algorithm, profile) if one.kind == "private")


def by_id(found: Sequence[FoundObject]) -> dict[bytes, list[FoundObject]]:
    """Group objects by their `CKA_ID`."""
    sets: dict[bytes, list[FoundObject]] = {}
    for one in found:
        sets.setdefault(one.id, []).append(one)
    return sets


def _unfit(wanted: Sequence[KeyObject], id_: bytes, found: Sequence[FoundObject]) -> list[str]:
    findings = [f"a {o.kind} object has another CKA_ID" for o in found if o.id != id_]
    for one in wanted:
        what = (one.kind, one.key_type)
        same = [o for o in found if (o.kind, o.attributes.get("KEY_TYPE")) == what]
        if len(same) != 1:
            findings.append(f"there are {len(same)} {one.kind} {one.key_type} objects, must be 1")
        for o in same:
            findings += (f"{one.kind} {one.key_type}: {text}" for text in weaknesses(one, o))
    if len(found) > len(wanted):
        findings.append(f"there are {len(found)} objects, must be {len(wanted)}")
    return findings


def _shown(value: AttributeValue) -> str:
    return "not told" if value is None else str(value)


def _pair(
    family: KeyFamily,
    private_use: str,
    public_use: str | None,
    mechanisms: tuple[str | None, ...],
    profile: Profile,
) -> tuple[KeyObject, ...]:
    key_type = {KeyFamily.EC: "EC", KeyFamily.ED25519: "EC_EDWARDS", KeyFamily.RSA: "RSA"}[family]
    return (
        _object("private", key_type, {private_use}, mechanisms, profile),
        _object("public", key_type, {public_use} if public_use else set(), (), profile),
    )


def _secret(
    key_type: str, uses: set[str], mechanisms: tuple[str | None, ...], profile: Profile
) -> KeyObject:
    return _object("secret", key_type, uses, mechanisms, profile)


def _object(
    kind: str,
    key_type: str,
    uses: set[str],
    mechanisms: tuple[str | None, ...],
    profile: Profile,
) -> KeyObject:
    # `given` is what we ask for, `proven` what a token says only of what it made itself.
    # PRIVATE also on public keys: without it, anybody on the machine could replace them, no PIN
    # needed (docs/adr/0007).
    given: dict[str, AttributeValue] = {
        "TOKEN": True,
        "PRIVATE": True,
        "MODIFIABLE": False,
        "COPYABLE": False,
    }
    given |= {use: use in uses for use in _USES_OF_KIND[kind]}
    proven: dict[str, AttributeValue] = {"LOCAL": True}
    if kind != "public":
        given |= {"SENSITIVE": True, "EXTRACTABLE": False}
        proven |= {"ALWAYS_SENSITIVE": True, "NEVER_EXTRACTABLE": True}
        known = [mechanism for mechanism in mechanisms if mechanism is not None]
        given["ALLOWED_MECHANISMS"] = sorted(profile.mechanism_number(name) for name in known)
    return KeyObject(
        kind,
        key_type,
        {name: value for name, value in given.items() if profile.sets(kind, name)},
        {name: value for name, value in (given | proven).items() if profile.shows(kind, name)},
    )
