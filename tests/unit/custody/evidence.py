"""What a scan of a well provisioned token shows, from the same tables as provisioning itself."""

import hashlib
from collections.abc import Iterable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from keycustody.config import KeySettings
from keycustody.custody.keys.catalogue import own_keys
from keycustody.custody.keys.evidence import label_of
from keycustody.formats import state
from keycustody.formats.state import State, StateRecord
from keycustody.token import profiles
from keycustody.token.api import FoundObject, Scanned
from keycustody.token.attributes import (
    SENTINEL_APPLICATION,
    SENTINEL_LABEL,
    STATE_APPLICATION,
    objects_of,
)

PROFILE = profiles.load("softhsm2")


def public_key(seed: int) -> bytes:
    """A DER SubjectPublicKeyInfo that depends on the seed only."""
    return (
        ec.derive_private_key(seed, ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def objects(name: str, number: int, settings: KeySettings, *, seed: int = 1) -> list[FoundObject]:
    """The objects of one version."""
    id_ = hashlib.sha256(f"{name}{number}{seed}".encode()).digest()[:16]
    return [
        FoundObject(
            one.kind,
            label_of(name, number),
            id_,
            one.expected(),
            public_key=public_key(seed) if one.kind == "public" else b"",
        )
        for one in objects_of(settings.purpose, settings.algorithm, PROFILE)
    ]


def record(
    found: Iterable[FoundObject],
    name: str,
    number: int,
    settings: KeySettings,
    *,
    worst: State = State.ACTIVE,
    time: str = "2026-01-01T00:00:00Z",
) -> FoundObject:
    """A state record of these objects."""
    found = list(found)
    public = next((one.public_key for one in found if one.kind == "public"), b"")
    value = state.encode(
        StateRecord(
            1,
            name,
            number,
            found[0].id.hex(),
            settings.purpose,
            settings.algorithm,
            hashlib.sha256(public).hexdigest() if public else "",
            "" if public else "77" * 72,
            worst,
            time,
        )
    )
    return data(STATE_APPLICATION, label_of(name, number), value)


def data(application: str, label: str, value: bytes) -> FoundObject:
    """A data object."""
    return FoundObject("data", label, b"", {}, application=application, value=value)


def version(name: str, number: int, settings: KeySettings, *, seed: int = 1) -> list[FoundObject]:
    """The objects and the record of one version."""
    found = objects(name, number, settings, seed=seed)
    return [*found, record(found, name, number, settings)]


SENTINEL = data(SENTINEL_APPLICATION, SENTINEL_LABEL, SENTINEL_APPLICATION.encode())
PROVISIONED = [
    SENTINEL,
    *(
        found
        for seed, (name, settings) in enumerate(own_keys(PROFILE).items(), start=7)
        for found in version(name, 1, settings, seed=seed)
    ),
]


def scan(*found: FoundObject, public: Iterable[str] = ()) -> Scanned:
    """A scan of a provisioned token that also shows these."""
    return Scanned([*PROVISIONED, *found], list(public))
