"""What the token shows of each version, and whether it can be believed. Pure.

Evidence is grouped by label and, below that, by `CKA_ID`: two agents that made one version at once
left two sets under one label, and the lowest id that has a record is the version, for every reader.
An object planted without a PIN is public, so a scan only mentions it. What a PIN holder put under
one of our labels makes that version unusable, unless it is a whole version of its own: then the
records say which one is meant.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from keycustody.config import KeySettings
from keycustody.errors import KeyNotTrusted
from keycustody.formats import state
from keycustody.formats.names import VERSION_MAX
from keycustody.formats.state import State, StateRecord
from keycustody.token.api import FoundObject, KeyRef, Scanned
from keycustody.token.attributes import (
    SENTINEL_APPLICATION,
    SENTINEL_LABEL,
    STATE_APPLICATION,
    amiss,
    by_id,
    merely_weaker,
    objects_of,
    unaccepted,
)
from keycustody.token.profiles import Profile

_VERSION = re.compile("[1-9][0-9]{0,9}")
_KEY_KINDS = ("private", "public", "secret")


class Kind(StrEnum):
    """What a finding is about."""

    UNDECLARED = "undeclared"  # a key that the settings do not declare
    DECLARED_OTHERWISE = "declared-otherwise"  # another purpose or algorithm than is declared
    WEAKER = "weaker"  # attributes that are weaker than they must be
    IMPOSTOR = "impostor"  # objects under our labels that do not fit
    UNRECORDED = "unrecorded"  # a whole version without a record: interrupted, or being made
    TWIN = "twin"  # a second whole version under one label
    MISSING = "missing"  # this agent has seen it, and the token does not hold it
    STATE = "state"  # settings, token and this agent's memory do not say the same
    OVERDUE = "overdue"  # older than its rotation period
    INACTIVE = "inactive"  # a declared key that has versions, and none of them is active


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be; `version` 0 if it is not about one."""

    kind: Kind
    key: str
    version: int
    text: str


class Doubt(Exception):
    """Why a version cannot be believed."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything on the token under one label."""

    objects: tuple[FoundObject, ...]
    records: tuple[bytes, ...]

    def of(self, id_: bytes) -> tuple[FoundObject, ...]:
        """The objects with that `CKA_ID`."""
        return tuple(one for one in self.objects if one.id == id_)


def gather(scan: Scanned) -> dict[str, Evidence]:
    """Group the objects of a scan by label; leaves out what is neither a key nor a record. Objects
    of an adopted key are where its records are, whatever their own label."""
    objects: dict[str, list[FoundObject]] = defaultdict(list)
    records: dict[str, list[bytes]] = defaultdict(list)
    homes: dict[tuple[str, bytes], str] = {}
    for found in scan.objects:
        if found.kind == "data" and found.application == STATE_APPLICATION:
            records[found.label].append(found.value)
            if (own := _adopted(found.value)) is not None:
                homes.setdefault(own, found.label)
    for found in scan.objects:
        if found.kind in _KEY_KINDS:
            home = homes.get((found.label, found.id))
            if home is None or found.kind == "private":
                objects[home or found.label].append(found)
    return {
        label: Evidence(tuple(objects[label]), tuple(records[label]))
        for label in sorted(objects.keys() | records.keys())
    }


def _adopted(data: bytes) -> tuple[str, bytes] | None:
    """The own label and id of the key that a record adopts, if that is what it does."""
    try:
        record = state.decode(data)
    except KeyNotTrusted:
        return None
    return None if record.adopted is None else (record.adopted.label, bytes.fromhex(record.id))


def has_sentinel(scan: Scanned) -> bool:
    """Did the scan see the object that every full scan sees?"""
    return any(
        found.kind == "data"
        and found.label == SENTINEL_LABEL
        and found.application == SENTINEL_APPLICATION
        for found in scan.objects
    )


def whole_sets(found: Evidence, settings: KeySettings, profile: Profile) -> list[bytes]:
    """Return the ids under which there is all that a version needs, and nothing amiss, sorted."""
    wanted = objects_of(settings.purpose, settings.algorithm, profile)
    sets = by_id(found.objects)
    return sorted(id_ for id_, objects in sets.items() if not amiss(wanted, id_, objects))


def records_of(name: str, number: int, found: Evidence) -> dict[bytes, list[StateRecord]]:
    """Return the records under a label by the `CKA_ID` that they are about. Raises `Doubt`."""
    sets: dict[bytes, list[StateRecord]] = defaultdict(list)
    for data in found.records:
        try:
            record = state.decode(data)
        except KeyNotTrusted as error:
            raise Doubt(Kind.IMPOSTOR, error.message) from error
        if (record.name, record.version) != (name, number):
            raise Doubt(Kind.IMPOSTOR, "Its state record is about another key.")
        sets[bytes.fromhex(record.id)].append(record)
    return sets


@dataclass(frozen=True, slots=True)
class Account:
    """What the records of one version say: the one that counts, when the version was made, and the
    references by which a worker finds and knows it."""

    record: StateRecord
    created: str
    ref: KeyRef
    public_key: bytes = b""

    @property
    def weaker(self) -> tuple[str, ...]:
        """What is recorded as weaker than in keys that we make."""
        return () if self.record.adopted is None else self.record.adopted.weaker


def account_of(
    name: str, number: int, declared: KeySettings, found: Evidence, profile: Profile
) -> Account:
    """Return what is recorded of a version, whatever its objects are. Raises `Doubt`."""
    sets = records_of(name, number, found)
    if sets:
        id_ = min(sets)
        records = sets[id_]
    else:
        whole = whole_sets(found, declared, profile)
        if profile.data_objects:
            kind = Kind.UNRECORDED if whole else Kind.IMPOSTOR
            raise Doubt(kind, "It has no state record.")
        if not whole:
            reasons = _reasons(declared.purpose, declared.algorithm, found, profile)
            raise _unlike(reasons)
        id_ = whole[0]
        records = [record_for(name, number, declared, found.of(id_), time="")]
    try:
        record = state.worst(records)
    except KeyNotTrusted as error:
        raise Doubt(Kind.IMPOSTOR, error.message) from error
    witnesses = sorted({one.witness for one in records if one.witness})
    public_key = _public_key(record, found.of(id_))
    ref = KeyRef(
        label_of(name, number),
        id_,
        record.purpose,
        record.algorithm,
        bytes.fromhex(record.public_sha256),
        bytes.fromhex("".join(witnesses)),
        record.adopted,
    )
    return Account(record, min(one.time for one in records), ref, public_key)


def check_objects(account: Account, found: Evidence, profile: Profile) -> None:
    """Raise `Doubt` unless the objects of a version are exactly what its records say."""
    record = account.record
    if record.adopted is not None:
        what = (record.purpose, record.algorithm, account.ref)
        if reasons := unaccepted(*what, found.objects, profile):
            raise _unlike(reasons)
    elif reasons := amiss(
        objects_of(record.purpose, record.algorithm, profile), account.ref.id, found.objects
    ):
        raise _unlike(reasons)
    public_key = account.public_key
    if (hashlib.sha256(public_key).hexdigest() if public_key else "") != record.public_sha256:
        raise Doubt(Kind.IMPOSTOR, "Its public key is not the one that its state record pins.")
    if profile.data_objects and bool(account.ref.witness) != (record.purpose == "wrap"):
        raise Doubt(Kind.IMPOSTOR, "Its state record does not say what it is known by.")


def check_others(
    chosen: Account, name: str, number: int, found: Evidence, profile: Profile
) -> None:
    """Raise `Doubt` if another recorded id under the label is neither a whole version of its own
    nor destroyed: then the records contradict each other, and nobody knows which is right."""
    for id_, records in records_of(name, number, found).items():
        if id_ == chosen.ref.id:
            continue
        one = records[0]
        gone = any(record.state is State.DESTROYED for record in records)
        wanted = objects_of(one.purpose, one.algorithm, profile)
        if not gone and (one.adopted is not None or amiss(wanted, id_, found.of(id_))):
            raise Doubt(Kind.IMPOSTOR, "The state records of one version contradict each other.")


def _reasons(purpose: str, algorithm: str, found: Evidence, profile: Profile) -> list[str]:
    id_ = found.objects[0].id if found.objects else b""
    return amiss(objects_of(purpose, algorithm, profile), id_, found.objects)


def _unlike(reasons: Sequence[str]) -> Doubt:
    kind = Kind.WEAKER if merely_weaker(reasons) else Kind.IMPOSTOR
    return Doubt(kind, f"It is not as keycustody makes keys: {'; '.join(reasons)}.")


def _public_key(record: StateRecord, objects: Iterable[FoundObject]) -> bytes:
    if record.adopted is not None:
        return record.adopted.public_key
    return next((one.public_key for one in objects if one.kind == "public"), b"")


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
