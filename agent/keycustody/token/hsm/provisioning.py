"""What is on the token, and making more of it: scan, key versions, data objects.

An existing label or `CKA_ID` is never made a second time, and a version that is only partly made,
or does not prove itself, is destroyed again.
"""

import contextlib
import hashlib
from typing import Any

import pkcs11
from msgspec.structs import replace
from pkcs11.attributes import ALL_CAPABILITIES
from pkcs11.constants import DEFAULT, Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import KeyType

from keycustody.algorithms import KEYS, KeyFamily, Purpose
from keycustody.errors import InvalidRequest, KeyNotTrusted, UnsupportedByToken
from keycustody.token.api import (
    Created,
    CreateVersion,
    DestroyObjects,
    Done,
    Inspect,
    KeyRef,
    Scanned,
    WriteData,
)
from keycustody.token.attributes import KeyObject, objects_of
from keycustody.token.hsm.failures import STALE_HANDLE
from keycustody.token.hsm.keys import KeyRing
from keycustody.token.hsm.objects import (
    KEY_KINDS,
    describe,
    find,
    kind_of,
    label_of,
    looked,
    public_key,
    template,
)
from keycustody.token.hsm.public_keys import EC_PARAMS
from keycustody.token.profiles import Profile

#: Anybody on the machine can make public objects: they are listed for the operator, within bounds.
_PUBLIC_LABELS = 1000
_LABEL_SHOWN = 200

_BITS = {KeyType.AES: 256, KeyType.GENERIC_SECRET: 256}


def scan(session: pkcs11.Session, profile: Profile) -> Scanned:
    """List private token objects, and the labels of public ones.

    What SoftHSM had begun to make when its process died stays for ever: an object of a class, with
    no key in it, no label, and `CKA_TOKEN` still false. It can serve nothing, and nobody can say
    whose it is: it may just be in the making.
    """
    return Scanned(
        looked(
            lambda: [describe(found, profile) for found in find(session, TOKEN=True, PRIVATE=True)]
        ),
        looked(
            lambda: [
                label_of(found)[:_LABEL_SHOWN]
                for found in find(session, TOKEN=True, PRIVATE=False)[:_PUBLIC_LABELS]
            ]
        ),
    )


def create_version(
    request: CreateVersion, session: pkcs11.Session, ring: KeyRing, profile: Profile
) -> Created:
    """Generate the objects of one version and check them as every later load will.

    Raises `InvalidRequest` if the label or ID is taken, `UnsupportedByToken`, `KeyNotTrusted` if
    the token did not make what was asked.
    """
    _check_possible(request, profile)
    if any(
        kind_of(found) in KEY_KINDS for found in find(session, LABEL=request.label, PRIVATE=True)
    ):
        raise InvalidRequest(f"The token holds a key {request.label!r} already.")
    if find(session, ID=request.id, PRIVATE=True):
        raise InvalidRequest("The token holds an object with that CKA_ID already.")
    wanted = objects_of(request.purpose, request.algorithm, profile)
    made: list[Any] = []
    try:
        if Purpose(request.purpose) is Purpose.WRAP:
            for one in wanted:
                made.append(_secret(session, request, one))  # noqa: PERF401 (kept if a later one fails)
        else:
            made += _pair(session, request, wanted)
        ref = KeyRef(request.label, request.id, request.purpose, request.algorithm)
        public = _made_public(made, ref)
        pinned = hashlib.sha256(public).digest() if public else b""
        ring.load(replace(ref, public_sha256=pinned), fresh=True)
    except BaseException:
        for one in made:
            with contextlib.suppress(PKCS11Error):
                one.destroy()
        raise
    return Created(public)


def destroy_objects(request: DestroyObjects, session: pkcs11.Session) -> Done:
    """Destroy the key objects that have this label and this id, the private half first."""

    def found() -> list[tuple[bool, Any]]:
        same = find(session, LABEL=request.label, ID=request.id)
        kinds = [(kind_of(one), one) for one in same]
        return [(kind == "public", one) for kind, one in kinds if kind in KEY_KINDS]

    for _, one in sorted(looked(found), key=lambda each: each[0]):
        # Another agent may be finishing the same change.
        with contextlib.suppress(*STALE_HANDLE):
            one.destroy()
    return Done()


def inspect(request: Inspect, session: pkcs11.Session, profile: Profile) -> Scanned:
    """List the key objects that have this id, whoever may see them."""
    found = looked(lambda: [describe(one, profile) for one in find(session, ID=request.id)])
    return Scanned([one for one in found if one.kind in KEY_KINDS], [])


def write_data(request: WriteData, session: pkcs11.Session, profile: Profile) -> Done:
    """Create one data object that nobody can change, nor (where the module knows how) destroy."""
    if not profile.data_objects:
        raise UnsupportedByToken(f"Tokens of profile {profile.name} have no data objects.")
    values = {
        "TOKEN": True,
        "PRIVATE": True,
        "MODIFIABLE": False,
        "COPYABLE": False,
        "DESTROYABLE": False,
    }
    known = {name: value for name, value in values.items() if profile.sets("data", name)}
    # A look, for what it does to SoftHSM 2.6: a process that writes before it has looked never sees
    # what another one wrote since its last look, until somebody writes once more.
    find(session, LABEL=request.label)
    session.create_object(
        {Attribute.CLASS: ObjectClass.DATA}
        | template(known)
        | template(
            {"APPLICATION": request.application, "LABEL": request.label, "VALUE": request.value}
        )
    )
    return Done()


def _check_possible(request: CreateVersion, profile: Profile) -> None:
    purpose = Purpose(request.purpose)
    if purpose not in KEYS[request.algorithm].purposes:
        raise InvalidRequest(f"A {request.algorithm} key cannot be for {purpose.value}.")
    if not profile.serves(purpose, request.algorithm):
        raise UnsupportedByToken(
            f"Tokens of profile {profile.name} have no {request.algorithm} keys to "
            f"{purpose.value} with."
        )


def _template(wanted: KeyObject, request: CreateVersion) -> dict[Attribute, Any]:
    """Return exactly what the object is to be made with: python-pkcs11 would add attributes that a
    module may refuse, and leaves out those whose value is its DEFAULT."""
    added = dict.fromkeys((*ALL_CAPABILITIES, Attribute.PRIVATE, Attribute.SENSITIVE), DEFAULT)
    named = template({"LABEL": request.label, "ID": request.id})
    return {**added, **template(wanted.set), **named}


def _secret(session: Any, request: CreateVersion, wanted: KeyObject) -> Any:
    kind = KeyType[wanted.key_type]
    return session.generate_key(
        kind,
        _BITS[kind],
        store=True,
        capabilities=0,
        template=_template(wanted, request),
    )


def _pair(session: Any, request: CreateVersion, wanted: tuple[KeyObject, ...]) -> list[Any]:
    by_kind = {one.kind: _template(one, request) for one in wanted}
    algorithm = KEYS[request.algorithm]
    given = {
        "store": True,
        "capabilities": 0,
        "public_template": by_kind["public"],
        "private_template": by_kind["private"],
    }
    if algorithm.family is KeyFamily.RSA:
        return list(session.generate_keypair(KeyType.RSA, algorithm.bits, **given))
    kind = KeyType[wanted[0].key_type]
    params = session.create_domain_parameters(
        kind, template({"EC_PARAMS": EC_PARAMS[algorithm.name]}), local=True
    )
    if algorithm.family is KeyFamily.ED25519:
        given["mechanism"] = pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN
    return list(params.generate_keypair(**given))


def _made_public(made: list[Any], ref: KeyRef) -> bytes:
    if Purpose(ref.purpose) is Purpose.WRAP:
        return b""
    found = public_key(made[0], KEYS[ref.algorithm])
    if not found:
        raise KeyNotTrusted(f"The token did not make a {ref.algorithm} key.")
    return found
