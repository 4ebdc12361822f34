"""The catalogue: names to versions, read from the token and not believed blindly.

Pure: `build` takes a scan and says which versions can be served and what is amiss. A version counts
only if it has state records that agree, exactly the objects of its purpose under its label and id,
with exactly the right attributes, and the public key that its record pins (DESIGN.md 7). The worker
checks the same again at each load, and has the public key prove itself.

An object planted without a PIN is public, so a scan only mentions it. An object that a PIN holder
put under one of our labels makes that version unusable: the agent cannot know which one is meant.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from keycustody.algorithms import DECRYPTIONS, KEYS, Purpose, Status, signatures_for
from keycustody.config import PURPOSE_OF, KeySettings
from keycustody.errors import (
    KeycustodyError,
    KeyNotFound,
    KeyNotTrusted,
    KeyPurpose,
    TokenNotProvisioned,
)
from keycustody.formats import state
from keycustody.formats.names import VERSION_MAX
from keycustody.formats.state import State, StateRecord
from keycustody.token.api import FoundObject, KeyRef, Scanned
from keycustody.token.attributes import (
    DELIVERY_NAME,
    SENTINEL_APPLICATION,
    SENTINEL_LABEL,
    STATE_APPLICATION,
    amiss,
    objects_of,
)
from keycustody.token.profiles import Profile

_VERSION = re.compile("[1-9][0-9]{0,9}")

#: What a `retired` version may still be used for.
_RETIRED_MAY = frozenset({"unwrap", "decrypt", "rewrap"})

DELIVERY_KEY = KeySettings(purpose=Purpose.AGREE, algorithm="EC_P256")


@dataclass(frozen=True, slots=True)
class Version:
    """One version that can be believed."""

    number: int
    ref: KeyRef
    state: State
    created: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """A declared key and its usable versions, oldest first. `problem` says why there are none."""

    name: str
    declared: KeySettings
    versions: tuple[Version, ...]
    problem: KeycustodyError | None = None
    algorithms: tuple[str, ...] = ()
    #: Given operation, version and when it was made: raises if that is too long ago.
    check_age: Callable[[str, int, str], None] | None = field(default=None, compare=False)

    @property
    def servable(self) -> tuple[Version, ...]:
        """The versions that may be used for something."""
        return tuple(v for v in self.versions if v.state in (State.ACTIVE, State.RETIRED))

    def version(self, number: int, operation: str) -> Version:
        """Return the version to use: that number, or for 0 the newest active one.

        Raises `KeyPurpose` if the key is for something else, `KeyNotFound` if there is no such
        version or its state forbids the operation, `KeyNotTrusted` if what is there is not ours,
        `PolicyViolation` if it is too old for that.
        """
        purpose = PURPOSE_OF[operation]
        if self.declared.purpose is not purpose:
            raise KeyPurpose(
                f"Key {self.name!r} is for {self.declared.purpose.value}; {operation} needs a key "
                f"for {purpose.value}."
            )
        if self.problem is not None:
            raise type(self.problem)(self.problem.message)
        allowed = {State.ACTIVE} | ({State.RETIRED} if operation in _RETIRED_MAY else set())
        fitting = [v for v in self.versions if v.state in allowed and number in (0, v.number)]
        if not fitting:
            which = f"version {number}" if number else "version"
            raise KeyNotFound(f"Key {self.name!r} has no {which} that may be used to {operation}.")
        chosen = fitting[-1]
        if self.check_age is not None:
            self.check_age(operation, chosen.number, chosen.created)
        return chosen


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What one good scan showed."""

    keys: Mapping[str, Key]
    delivery: Version | None
    findings: tuple[str, ...] = field(default=())

    def key(self, name: str) -> Key:
        """Return a declared key; `KeyNotFound` otherwise."""
        try:
            return self.keys[name]
        except KeyError:
            raise KeyNotFound(f"There is no key {name!r}.") from None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything on the token under one label."""

    objects: tuple[FoundObject, ...]
    records: tuple[bytes, ...]


def gather(scan: Scanned) -> dict[str, Evidence]:
    """Group the objects of a scan by label; leaves out what is neither a key nor a record."""
    objects: dict[str, list[FoundObject]] = defaultdict(list)
    records: dict[str, list[bytes]] = defaultdict(list)
    for found in scan.objects:
        if found.kind in ("private", "public", "secret"):
            objects[found.label].append(found)
        elif found.kind == "data" and found.application == STATE_APPLICATION:
            records[found.label].append(found.value)
    return {
        label: Evidence(tuple(objects[label]), tuple(records[label]))
        for label in sorted(objects.keys() | records.keys())
    }


def has_sentinel(scan: Scanned) -> bool:
    """Did the scan see the object that every full scan sees?"""
    return any(
        found.kind == "data"
        and found.label == SENTINEL_LABEL
        and found.application == SENTINEL_APPLICATION
        for found in scan.objects
    )


def build(scan: Scanned, declared: Mapping[str, KeySettings], profile: Profile) -> Catalogue:
    """Return the catalogue that a scan supports.

    Raises `TokenNotProvisioned` if the scan saw too little to be used: no sentinel, or (where the
    profile seals) no delivery key that can be believed.
    """
    if profile.data_objects and not has_sentinel(scan):
        raise TokenNotProvisioned(
            "The token does not show keycustody's sentinel: it was not provisioned, or shows only "
            "part of what it holds. Run `keycustody keys apply`."
        )
    evidence = gather(scan)
    wanted = {**declared, **({DELIVERY_NAME: DELIVERY_KEY} if profile.sealed_delivery else {})}
    findings: list[str] = [
        f"The token holds a public object labelled {label!r}; it is ignored."
        for label in scan.public_labels
        if name_and_number(label)[0] in wanted
    ]
    keys = {
        name: _key(name, settings, evidence, profile, findings) for name, settings in wanted.items()
    }
    findings += (
        f"{label}: is on the token, and not declared in the settings."
        for label in evidence
        if name_and_number(label)[0] not in wanted
    )
    return Catalogue(
        {name: key for name, key in keys.items() if name in declared},
        _delivery(keys[DELIVERY_NAME]) if DELIVERY_NAME in keys else None,
        tuple(findings),
    )


def _delivery(key: Key) -> Version:
    try:
        return key.version(0, "agree")
    except KeycustodyError as error:
        raise TokenNotProvisioned(
            f"The agent's delivery key cannot be used: {error.message} Run `keycustody keys apply`."
        ) from error


def _key(
    name: str,
    declared: KeySettings,
    evidence: Mapping[str, Evidence],
    profile: Profile,
    findings: list[str],
) -> Key:
    versions: list[Version] = []
    problem: KeycustodyError | None = None
    for label, found in evidence.items():
        owner, number = name_and_number(label)
        if owner != name:
            continue
        try:
            versions.append(judge(name, number, declared, found, profile))
        except KeyNotTrusted as error:
            findings.append(f"{label}: {error.message}")
            problem = error
    versions.sort(key=lambda version: version.number)
    if versions:
        problem = None
    elif problem is None:
        problem = KeyNotFound(f"Key {name!r} is declared, and not yet on the token; run apply.")
    return Key(name, declared, tuple(versions), problem, algorithms_of(declared, profile))


def algorithms_of(declared: KeySettings, profile: Profile) -> tuple[str, ...]:
    """Return what a request may name for a key, the default first: what its settings say, else
    all that fit the key and that the token can do."""
    if declared.algorithms is not None:
        return declared.algorithms
    match declared.purpose:
        case Purpose.SIGN:
            able = profile.signatures()
            fitting = (
                e.name for e in signatures_for(KEYS[declared.algorithm]) if e.status.protects
            )
            return tuple(name for name in fitting if name in able)
        case Purpose.DECRYPT:
            served = (e.name for e in DECRYPTIONS.values() if e.status is not Status.FORBIDDEN)
            return tuple(name for name in served if name in profile.decryptions)
    return ()


def judge(
    name: str, number: int, declared: KeySettings, found: Evidence, profile: Profile
) -> Version:
    """Return the version if everything about it is as it must be, else raise `KeyNotTrusted`."""
    record = _record(name, number, declared, found, profile)
    if (record.name, record.version) != (name, number):
        raise KeyNotTrusted("Its state record is about another key.")
    if (record.purpose, record.algorithm) != (declared.purpose.value, declared.algorithm):
        raise KeyNotTrusted(
            f"It was made as {record.algorithm} for {record.purpose}, and is declared as "
            f"{declared.algorithm} for {declared.purpose.value}."
        )
    wanted = objects_of(record.purpose, record.algorithm, profile)
    reasons = amiss(wanted, bytes.fromhex(record.id), found.objects)
    if reasons:
        raise KeyNotTrusted(f"It is not as keycustody makes keys: {'; '.join(reasons)}.")
    public_key = next((o.public_key for o in found.objects if o.kind == "public"), b"")
    public_sha256 = hashlib.sha256(public_key).digest() if public_key else b""
    if public_sha256.hex() != record.public_sha256:
        raise KeyNotTrusted("Its public key is not the one that its state record pins.")
    if profile.data_objects and bool(record.witness) != (declared.purpose is Purpose.WRAP):
        raise KeyNotTrusted("Its state record does not say what it is known by.")
    ref = KeyRef(
        label_of(name, number),
        bytes.fromhex(record.id),
        record.purpose,
        record.algorithm,
        public_sha256,
        bytes.fromhex(record.witness),
    )
    return Version(number, ref, record.state, record.time, public_key)


def _record(
    name: str, number: int, declared: KeySettings, found: Evidence, profile: Profile
) -> StateRecord:
    if found.records:
        return state.worst([state.decode(data) for data in found.records])
    if profile.data_objects or not found.objects:
        raise KeyNotTrusted("It has no state record.")
    return record_for(name, number, declared, found.objects, time="")


def record_for(
    name: str,
    number: int,
    declared: KeySettings,
    objects: Iterable[FoundObject],
    *,
    time: str,
) -> StateRecord:
    """Return the first record of a version whose objects are these."""
    objects = tuple(objects)
    public_key = next((o.public_key for o in objects if o.kind == "public"), b"")
    return StateRecord(
        v=1,
        name=name,
        version=number,
        id=objects[0].id.hex(),
        purpose=declared.purpose.value,
        algorithm=declared.algorithm,
        public_sha256=hashlib.sha256(public_key).hexdigest() if public_key else "",
        witness="",
        state=State.ACTIVE,
        time=time,
    )


def label_of(name: str, number: int) -> str:
    """Return the CKA_LABEL of a version."""
    return f"{name}.v{number}"


def name_and_number(label: str) -> tuple[str, int]:
    """Return key name and version of a label; ("", 0) if it is not one of ours."""
    name, _, digits = label.rpartition(".v")
    if not name or not _VERSION.fullmatch(digits) or int(digits) > VERSION_MAX:
        return "", 0
    return name, int(digits)
