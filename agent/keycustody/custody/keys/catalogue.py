"""The catalogue: names to versions, read from the token and not believed blindly.

Pure: `look` takes a scan, the settings, what this agent remembers and the time, and says which
versions can be served and what is amiss; `build` refuses a scan that saw too little. A version
counts only if it has state records that agree, exactly the objects of its purpose under its label
and id, with exactly the right attributes, and the public key that its record pins (docs/adr/0007).
The worker checks the same again at each load, and has the public key prove itself.

The worst state wins: of the token's records, of what this agent remembers, and of the settings. A
new version is used where none is named only one interval after its record was written, when every
agent on the token has seen it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings
from keycustody.custody.keys import states
from keycustody.custody.keys.evidence import (
    Account,
    Doubt,
    Evidence,
    Finding,
    Kind,
    account_of,
    check_objects,
    check_others,
    gather,
    has_sentinel,
    label_of,
    name_and_number,
    whole_sets,
)
from keycustody.custody.keys.key import Key, Version, algorithms_of, newest_active
from keycustody.custody.keys.memory import Memory, Seen
from keycustody.errors import (
    KeycustodyError,
    KeyNotFound,
    KeyNotTrusted,
    TokenNotProvisioned,
)
from keycustody.formats.state import State
from keycustody.token.api import Scanned
from keycustody.token.attributes import AUDIT_NAME, DELIVERY_NAME
from keycustody.token.profiles import Profile

DELIVERY_KEY = KeySettings(purpose=Purpose.AGREE, algorithm="EC_P256")
#: What the audit key is, best first: what can sign a note (docs/format.md, 10).
_AUDIT_ALGORITHMS = ("ED25519", "EC_P256")

#: Seconds beside the interval: records have whole seconds.
_ROUNDING = 1.0


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What one good scan showed."""

    keys: Mapping[str, Key]
    delivery: Version | None
    drift: tuple[Finding, ...] = field(default=())
    #: What signs audit heads; None, and why, if nothing can: the journal then goes on unsigned,
    #: because records are worth more than their signature.
    audit: Version | None = None
    unsigned: str = ""

    @property
    def findings(self) -> tuple[str, ...]:
        """What is amiss, one sentence each."""
        return (*(finding.text for finding in self.drift), *filter(None, [self.unsigned]))

    def key(self, name: str) -> Key:
        """Return a declared key; `KeyNotFound` otherwise."""
        try:
            return self.keys[name]
        except KeyError:
            raise KeyNotFound(f"There is no key {name!r}.") from None


@dataclass(frozen=True, slots=True)
class View:
    """By what a scan is judged: the declared keys, the kind of token, what this agent remembers,
    the time, and the seconds between the scans of an agent."""

    declared: Mapping[str, KeySettings]
    profile: Profile
    memory: Memory = field(default_factory=Memory)
    now: datetime | None = None
    interval: float = 0.0

    @property
    def wanted(self) -> Mapping[str, KeySettings]:
        """The declared keys, and the agent's own."""
        return {**own_keys(self.profile), **self.declared}


@dataclass(frozen=True, slots=True)
class Sight:
    """What a scan shows, all of it: `keys` are the declared ones and the agent's own."""

    evidence: Mapping[str, Evidence]
    keys: Mapping[str, Key]
    drift: tuple[Finding, ...]


def own_keys(profile: Profile) -> Mapping[str, KeySettings]:
    """Return the agent's own keys, which no settings declare: the delivery key, if the token can
    seal, and the audit key, if it can sign notes."""
    keys = {DELIVERY_NAME: DELIVERY_KEY} if profile.sealed_delivery else {}
    for algorithm in _AUDIT_ALGORITHMS:
        if profile.serves(Purpose.SIGN, algorithm):
            keys[AUDIT_NAME] = KeySettings(purpose=Purpose.SIGN, algorithm=algorithm)
            break
    return keys


def build(
    scan: Scanned,
    declared: Mapping[str, KeySettings],
    profile: Profile,
    *,
    memory: Memory | None = None,
    now: datetime | None = None,
    interval: float = 0.0,
) -> Catalogue:
    """Return the catalogue that a scan supports.

    Raises `TokenNotProvisioned` if the scan saw too little to be used: no sentinel, or (where the
    profile seals) no delivery key that can be believed.
    """
    if profile.data_objects and not has_sentinel(scan):
        raise TokenNotProvisioned(
            "The token does not show keycustody's sentinel: it was not provisioned, or shows only "
            "part of what it holds. Run `keycustody keys apply`."
        )
    sight = look(scan, View(declared, profile, memory or Memory(), now, interval))
    audit, unsigned = _audit(sight.keys.get(AUDIT_NAME))
    return Catalogue(
        {name: key for name, key in sight.keys.items() if name in declared},
        _delivery(sight.keys[DELIVERY_NAME]) if DELIVERY_NAME in sight.keys else None,
        sight.drift,
        audit,
        unsigned,
    )


def look(scan: Scanned, view: View) -> Sight:
    """Return what a scan shows of the declared keys and the agent's own, and what is amiss."""
    evidence = gather(scan)
    wanted = view.wanted
    drift = [
        Finding(
            Kind.IMPOSTOR,
            *name_and_number(label),
            f"The token holds a public object labelled {label!r}; it is ignored.",
        )
        for label in scan.public_labels
        if name_and_number(label)[0] in wanted
    ]
    keys = {name: _key(name, settings, evidence, view, drift) for name, settings in wanted.items()}
    for label, found in evidence.items():
        name, number = name_and_number(label)
        if name not in wanted:
            ids = sorted({one.id.hex() for one in found.objects if one.kind == "private"})
            known = f" (CKA_ID {', '.join(ids)})" if any(ids) else ""
            text = f"{label}{known}: is on the token, and not declared in the settings."
            drift.append(Finding(Kind.UNDECLARED, name or label, number, text))
    drift += _missing(evidence, view)
    return Sight(evidence, keys, tuple(drift))


def _missing(evidence: Mapping[str, Evidence], view: View) -> Iterator[Finding]:
    """Yield what this agent remembers and the token, put back to an older day, does not hold."""
    for label, seen in sorted(view.memory.versions.items()):
        name, number = name_and_number(label)
        if name in view.wanted and label not in evidence and seen.state is not State.DESTROYED:
            text = f"{label}: this agent has seen it, and the token does not hold it."
            yield Finding(Kind.MISSING, name, number, text)


def remembered(memory: Memory, keys: Mapping[str, Key], now: datetime) -> Memory:
    """Return a memory with what these keys show: the id of each version that serves, and states."""
    for name, key in keys.items():
        for version in key.versions:
            serves = version.state in (State.ACTIVE, State.RETIRED) and not version.waiting
            seen = Seen(
                version.created or states.stamp(now),
                version.ref.id.hex() if serves else "",
                version.state,
                version.since,
            )
            memory = memory.noting(label_of(name, version.number), seen)
    return memory


def _delivery(key: Key) -> Version:
    try:
        return key.version(0, "agree")
    except KeycustodyError as error:
        raise TokenNotProvisioned(
            f"The agent's delivery key cannot be used: {error.message} Run `keycustody keys apply`."
        ) from error


def _audit(key: Key | None) -> tuple[Version | None, str]:
    if key is None:
        return None, "The token has no algorithm that can sign audit heads."
    try:
        return key.version(0, "sign"), ""
    except KeycustodyError as error:
        return None, (
            f"The agent's audit key cannot be used, so audit heads are not signed: {error.message} "
            "Run `keycustody keys apply`."
        )


def _key(
    name: str,
    declared: KeySettings,
    evidence: Mapping[str, Evidence],
    view: View,
    drift: list[Finding],
) -> Key:
    versions: list[Version] = []
    problem: KeycustodyError | None = None
    for label, found in evidence.items():
        owner, number = name_and_number(label)
        if owner != name:
            continue
        try:
            version = _judge(name, number, declared, found, view)
        except Doubt as doubt:
            drift.append(Finding(doubt.kind, name, number, f"{label}: {doubt.text}"))
            problem = KeyNotTrusted(doubt.text)
        else:
            versions.append(version)
            drift += _beside(name, version, declared, found, view)
    versions.sort(key=lambda version: version.number)
    if versions:
        problem = None
    elif problem is None:
        problem = KeyNotFound(f"Key {name!r} is declared, and not yet on the token; run apply.")
    versions = _waiting(versions, view)
    key = Key(name, declared, tuple(versions), problem, algorithms_of(declared, view.profile))
    drift += _overdue(key, view)
    drift += _inactive(key, view)
    return key


def _judge(name: str, number: int, declared: KeySettings, found: Evidence, view: View) -> Version:
    """Return the version if everything about it is as it must be, else raise `Doubt`. What is
    revoked or destroyed serves nothing, so its objects need not be there, or fit."""
    account = account_of(name, number, declared, found, view.profile)
    record = account.record
    if (record.purpose, record.algorithm) != (declared.purpose.value, declared.algorithm):
        raise Doubt(
            Kind.DECLARED_OTHERWISE,
            f"It was made as {record.algorithm} for {record.purpose}, and is declared as "
            f"{declared.algorithm} for {declared.purpose.value}.",
        )
    check_others(account, name, number, found, view.profile)
    label = label_of(name, number)
    seen = view.memory.versions.get(label, Seen(""))
    if seen.id and seen.id != account.ref.id.hex():
        raise Doubt(
            Kind.IMPOSTOR,
            f"This agent knows it by CKA_ID {seen.id}, and the token shows {account.ref.id.hex()}: "
            "another key was put in its place.",
        )
    state, since = _state(number, declared, account, seen)
    if state.rank < State.REVOKED.rank:
        check_objects(account, found, view.profile)
    return Version(
        number,
        account.ref,
        state,
        account.created or seen.first,
        account.public_key,
        since,
        weaker=account.weaker,
    )


def _state(number: int, declared: KeySettings, account: Account, seen: Seen) -> tuple[State, str]:
    """Return the worst that is said of a version, and when it became so as far as that is known."""
    record = account.record
    said = [(record.state, record.time), (seen.state, seen.since)]
    if (set_ := declared.states.get(str(number))) is not None:
        said.append((State(set_), ""))
    return max(said, key=lambda one: one[0].rank)


def _beside(
    name: str, version: Version, declared: KeySettings, found: Evidence, view: View
) -> Iterator[Finding]:
    """Yield what is amiss with a version that can be believed all the same."""
    label = label_of(name, version.number)
    for id_ in whole_sets(found, declared, view.profile):
        if id_ != version.ref.id and version.ref.adopted is None:
            yield Finding(
                Kind.TWIN,
                name,
                version.number,
                f"{label}: a second version with CKA_ID {id_.hex()} has its label; it is ignored.",
            )
    account = account_of(name, version.number, declared, found, view.profile)
    if view.profile.data_objects and account.record.state is not version.state:
        yield Finding(
            Kind.STATE,
            name,
            version.number,
            f"{label}: the token says {account.record.state}, the settings or this agent's memory "
            f"say {version.state}, which counts.",
        )


def _waiting(versions: list[Version], view: View) -> list[Version]:
    """Mark the versions that not every agent may know yet. One that has none before it serves at
    once: somebody who does not know it yet could only say that there is none."""
    served = False
    marked = []
    for version in versions:
        if version.state is State.ACTIVE and view.now is not None:
            age = states.seconds_since(version.created, view.now)
            new = age is not None and age < view.interval + _ROUNDING
            marked.append(replace(version, waiting=new and served))
            served = True
        else:
            marked.append(version)
    return marked


def _inactive(key: Key, view: View) -> Iterator[Finding]:
    """Yield that nothing new can be made with a key. `apply` does not mend that: whoever revoked
    the last version may have meant it."""
    if key.versions and newest_active(key) is None and key.name in view.declared:
        text = f"{key.name}: no version is active; `keycustody keys rotate {key.name}` makes one."
        yield Finding(Kind.INACTIVE, key.name, 0, text)


def _overdue(key: Key, view: View) -> Iterator[Finding]:
    newest = newest_active(key)
    if newest is None or view.now is None:
        return
    days = states.days_to_rotation(newest.created, key.declared.rotation_days, view.now)
    if days is not None and days <= 0:
        yield Finding(
            Kind.OVERDUE,
            key.name,
            newest.number,
            f"{label_of(key.name, newest.number)}: was made on {newest.created[:10]} and is to be "
            f"rotated every {key.declared.rotation_days} days.",
        )
