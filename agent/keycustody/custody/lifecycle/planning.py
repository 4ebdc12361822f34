"""From a change to its steps. Pure: what the token shows, what is declared, remembered, and the
time.

Rules:

* Nothing that is there is ever replaced, and nothing of others is removed. `apply` clears away only
  what this agent's memory says that it began to make itself, and the objects of versions that are
  recorded as destroyed already.
* A change that was made already has no steps, so that an interrupted command may simply be
repeated. * A rotation while the newest version is still waiting to serve is that same rotation. *
Which state follows which is said by `keycustody.custody.keys.states`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from keycustody.config import KeySettings
from keycustody.custody.keys import states
from keycustody.custody.keys.catalogue import Sight, View, look
from keycustody.custody.keys.evidence import (
    Account,
    Doubt,
    account_of,
    has_sentinel,
    label_of,
    name_and_number,
    records_of,
    whole_sets,
)
from keycustody.custody.keys.key import Key, newest_active
from keycustody.custody.keys.memory import Seen
from keycustody.custody.lifecycle.adoption import private_half
from keycustody.custody.lifecycle.changes import (
    Adopt,
    Apply,
    Change,
    Destroy,
    Retire,
    Revoke,
    Rotate,
)
from keycustody.custody.lifecycle.steps import Action, Step
from keycustody.errors import (
    InvalidRequest,
    InvalidTransition,
    KeyNotFound,
    KeyNotTrusted,
    TokenNotProvisioned,
)
from keycustody.formats.state import State
from keycustody.token.api import Scanned

_DEFAULT_WAIT_DAYS = KeySettings.model_fields["destroy_wait_days"].default
_SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Survey:
    """A scan, and by what it is judged."""

    scan: Scanned
    view: View
    sight: Sight

    @classmethod
    def of(cls, scan: Scanned, view: View) -> "Survey":
        """Look at a scan."""
        return cls(scan, view, look(scan, view))


def plan(change: Change, survey: Survey) -> list[Step]:
    """Return the steps of a change.

    Raises `TokenNotProvisioned` if the token has no sentinel, and state records all the same (then
    the scan saw too little) or the change is not to put one there, `KeyNotFound`, `KeyNotTrusted`,
    `InvalidTransition`, `InvalidRequest`.
    """
    marking = _mark(survey)
    if marking and not isinstance(change, Apply):
        # A record beside no sentinel would look like a scan that saw too little, to every reader.
        raise TokenNotProvisioned(
            "The token was not provisioned by keycustody; run `keycustody keys apply` first."
        )
    match change:
        case Apply():
            return [*marking, *_apply(survey)]
        case Rotate(name=""):
            return [step for name in sorted(_due(survey)) for step in _rotate(name, survey)]
        case Rotate():
            return list(_rotate(change.name, survey))
        case Retire():
            reason = "retired by an operator"
            return _worsen(change.name, change.version, State.RETIRED, reason, survey)
        case Revoke():
            return _worsen(change.name, change.version, State.REVOKED, change.reason, survey)
        case Destroy():
            return _destroy(change, survey)
        case Adopt():
            return _adopt(change, survey)


def _mark(survey: Survey) -> list[Step]:
    if not survey.view.profile.data_objects or has_sentinel(survey.scan):
        return []
    if any(found.records for found in survey.sight.evidence.values()):
        raise TokenNotProvisioned(
            "The token shows state records and no sentinel, so it shows only part of what it "
            "holds. Nothing was changed; look at the token first."
        )
    return [Step(Action.MARK)]


# -- apply -----------------------------------------------------------------------------------------


def _apply(survey: Survey) -> Iterator[Step]:
    for name, settings in survey.view.wanted.items():
        yield from _leftovers(name, survey)
        numbers = _numbers(name, survey)
        interrupted = list(_unrecorded(name, settings, survey))
        if not numbers and not interrupted:
            yield Step(Action.CREATE, name, _next(name, survey), settings)
        yield from interrupted
        yield from _restated(survey.sight.keys[name], survey)
        yield from _unfinished(name, settings, survey)
        yield from _superseded(survey.sight.keys[name], survey)


def _leftovers(name: str, survey: Survey) -> Iterator[Step]:
    """What this agent began to make and no record is about, if it is not whole or came second."""
    for id_, label in _begun(name, survey):
        found = survey.sight.evidence.get(label)
        if found is None or not found.of(id_) or is_recorded(label, id_, survey):
            continue
        settings = survey.view.wanted[name]
        whole = whole_sets(found, settings, survey.view.profile)
        if id_ not in whole or id_ != whole[0] or is_recorded(label, None, survey):
            number = name_and_number(label)[1]
            yield Step(Action.DISCARD, name, number, id=id_, label=label)


def _begun(name: str, survey: Survey) -> Iterator[tuple[bytes, str]]:
    for id_, label in survey.view.memory.making.items():
        if name_and_number(label)[0] == name:
            yield bytes.fromhex(id_), label


def is_recorded(label: str, id_: bytes | None, survey: Survey) -> bool:
    """Is there a record of that id under the label; with None: of any?"""
    try:
        sets = records_of(*name_and_number(label), survey.sight.evidence[label])
    except Doubt:
        return True
    return bool(sets) if id_ is None else id_ in sets


def _numbers(name: str, survey: Survey) -> set[int]:
    """The versions of which there is anything but what this agent will clear away."""
    discarded = {(step.label, step.id) for step in _leftovers(name, survey)}
    numbers = set()
    for label, found in survey.sight.evidence.items():
        owner, number = name_and_number(label)
        left = [one for one in found.objects if (label, one.id) not in discarded]
        if owner == name and (left or found.records):
            numbers.add(number)
    if not survey.view.profile.data_objects:
        # Nothing on such a token tells of what was destroyed.
        numbers |= {
            name_and_number(label)[1]
            for label, seen in survey.view.memory.versions.items()
            if name_and_number(label)[0] == name and seen.state is State.DESTROYED
        }
    return numbers


def _next(name: str, survey: Survey) -> int:
    """The number of a new version: past whatever was remembered, too. A token that is older than
    this agent's memory has lost versions, and another key under their numbers would be refused."""
    remembered = map(name_and_number, survey.view.memory.versions)
    numbers = {number for owner, number in remembered if owner == name}
    return max(numbers | _numbers(name, survey), default=0) + 1


def _unrecorded(name: str, settings: KeySettings, survey: Survey) -> Iterator[Step]:
    """Whole versions without a record: an interrupted run made them, or another agent does now."""
    if not survey.view.profile.data_objects:
        return
    for label, found in survey.sight.evidence.items():
        owner, number = name_and_number(label)
        if owner == name and not found.records and whole_sets(found, settings, survey.view.profile):
            yield Step(Action.RECORD, name, number, settings)


def _restated(key: Key, survey: Survey) -> Iterator[Step]:
    """States that settings or memory know to be worse than the token says: it is told again.
    Destruction is not: that is for an operator to ask for once more."""
    if not survey.view.profile.data_objects:
        return
    for version in key.versions:
        account = account_at(key.name, version.number, survey)
        worst = min(version.state, State.REVOKED, key=lambda state: state.rank)
        if worst.rank > account.record.state.rank:
            seen = survey.view.memory.versions.get(label_of(key.name, version.number), Seen(""))
            remembered = seen.state.rank >= worst.rank
            yield Step(
                Action.STATE,
                key.name,
                version.number,
                state=worst,
                since=seen.since if remembered else "",
                reason=(seen.reason if remembered else "")
                or "so say the settings, or this agent's memory",
            )


def _unfinished(name: str, settings: KeySettings, survey: Survey) -> Iterator[Step]:
    """Objects of versions that are recorded as destroyed: an interrupted run left them."""
    for label, found in survey.sight.evidence.items():
        owner, number = name_and_number(label)
        if owner != name or not found.records or not found.objects:
            continue
        try:
            account = account_of(name, number, settings, found, survey.view.profile)
        except Doubt:
            continue
        if account.record.state is State.DESTROYED and found.of(account.ref.id):
            yield _objects_of(account, name, number)


def _superseded(key: Key, survey: Survey) -> Iterator[Step]:
    """Active versions that a newer one has replaced for as long as both were to be active."""
    now, settings = survey.view.now, key.declared
    if settings.old_versions != "retire" or now is None:
        return
    active = [version for version in key.versions if version.state is State.ACTIVE]
    for older, newer in pairwise(active):
        age = states.seconds_since(newer.created, now)
        served = None if age is None else age - survey.view.interval
        if not newer.waiting and served is not None and served >= settings.overlap_seconds:
            reason = f"superseded by version {active[-1].number}"
            yield Step(Action.STATE, key.name, older.number, state=State.RETIRED, reason=reason)


# -- rotate ----------------------------------------------------------------------------------------


def _due(survey: Survey) -> Iterator[str]:
    """Names of declared keys that are overdue, or have superseded versions to retire."""
    now = survey.view.now
    for name in survey.view.declared:
        key = survey.sight.keys[name]
        newest = newest_active(key)
        if newest is None or now is None:
            continue
        days = states.days_to_rotation(newest.created, key.declared.rotation_days, now)
        if days is not None and days <= 0:
            yield name


def _rotate(name: str, survey: Survey) -> Iterator[Step]:
    settings = survey.view.declared.get(name)
    if settings is None:
        raise KeyNotFound(f"Key {name!r} is not declared in the settings.")
    key = survey.sight.keys[name]
    yield from _leftovers(name, survey)
    interrupted = list(_unrecorded(name, settings, survey))
    yield from interrupted
    newest = newest_active(key)
    if not interrupted and (newest is None or not newest.waiting):
        numbers = _numbers(name, survey)
        if not numbers:
            raise KeyNotFound(f"Key {name!r} is not yet on the token; run `keycustody keys apply`.")
        yield Step(Action.CREATE, name, _next(name, survey), settings)
    yield from _superseded(key, survey)


# -- states ----------------------------------------------------------------------------------------


def _worsen(name: str, number: int, state: State, reason: str, survey: Survey) -> list[Step]:
    account = account_at(name, number, survey)
    now = _state_of(account, name, number, survey)
    if now is state:
        return []
    states.check(label_of(name, number), now, state)
    return [Step(Action.STATE, name, number, state=state, reason=reason)]


def _destroy(change: Destroy, survey: Survey) -> list[Step]:
    name, number = change.name, change.version
    account = account_at(name, number, survey)
    found = survey.sight.evidence[label_of(name, number)]
    left = [_objects_of(account, name, number)] if found.of(account.ref.id) else []
    if account.record.state is State.DESTROYED:
        return left
    # What is remembered as destroyed is back, out of a backup: it has waited long ago.
    now = min(_state_of(account, name, number, survey), State.REVOKED, key=lambda s: s.rank)
    states.check(label_of(name, number), now, State.DESTROYED)
    _check_waited(account, name, number, survey)
    reason = "destroyed by an operator"
    return [Step(Action.STATE, name, number, state=State.DESTROYED, reason=reason), *left]


def _check_waited(account: Account, name: str, number: int, survey: Survey) -> None:
    seen = survey.view.memory.versions.get(label_of(name, number), Seen(""))
    record = account.record
    times = [record.time] if record.state.rank >= State.REVOKED.rank else []
    times += [seen.since] if seen.state.rank >= State.REVOKED.rank and seen.since else []
    if not times or survey.view.now is None:
        raise InvalidTransition(
            f"It is not known since when {label_of(name, number)} is revoked; revoke it first."
        )
    settings = survey.view.declared.get(name)
    days = _DEFAULT_WAIT_DAYS if settings is None else settings.destroy_wait_days
    waited = states.seconds_since(min(times), survey.view.now)
    if waited is None or waited < days * _SECONDS_PER_DAY:
        raise InvalidTransition(
            f"{label_of(name, number)} was revoked at {min(times)}, and can be destroyed "
            f"{days} days after that."
        )


def _objects_of(account: Account, name: str, number: int) -> Step:
    adopted = account.ref.adopted
    label = label_of(name, number) if adopted is None else adopted.label
    return Step(Action.DESTROY, name, number, id=account.ref.id, label=label)


def account_at(name: str, number: int, survey: Survey) -> Account:
    """What is recorded of a version, declared or not. Raises `KeyNotFound`, `KeyNotTrusted`."""
    label = label_of(name, number)
    found = survey.sight.evidence.get(label)
    settings = survey.view.wanted.get(name)
    if found is None or (settings is None and not found.records):
        raise KeyNotFound(f"The token holds no version {number} of key {name!r}.")
    try:
        if settings is None:
            sets = records_of(name, number, found)
            first = sets[min(sets)][0]
            settings = KeySettings.model_validate(
                {"purpose": first.purpose, "algorithm": first.algorithm}
            )
        return account_of(name, number, settings, found, survey.view.profile)
    except (Doubt, ValueError) as error:
        raise KeyNotTrusted(f"{label}: {error}") from error


def _state_of(account: Account, name: str, number: int, survey: Survey) -> State:
    """The state that counts: the worst of token, memory and settings."""
    seen = survey.view.memory.versions.get(label_of(name, number), Seen(""))
    settings = survey.view.declared.get(name)
    said = None if settings is None else settings.states.get(str(number))
    return states.worse(
        account.record.state, seen.state, State.ACTIVE if said is None else State(said)
    )


# -- adopt -----------------------------------------------------------------------------------------


def _adopt(change: Adopt, survey: Survey) -> list[Step]:
    name, settings = change.name, survey.view.declared.get(change.name)
    if settings is None:
        raise KeyNotFound(f"Key {name!r} is not declared in the settings; declare it first.")
    if settings.purpose == "wrap":
        raise InvalidRequest(
            "A wrap version is two keys that only keycustody makes; there is nothing to adopt."
        )
    if not survey.view.profile.data_objects:
        raise InvalidRequest("This token keeps no records, so no key on it can be adopted.")
    holder = _holder(change.id, survey)
    if name_and_number(holder)[0] == name:
        return []
    if holder:
        raise InvalidRequest(f"The key with that CKA_ID is {holder} already; a key has one name.")
    number = change.version or _next(name, survey)
    if number in _numbers(name, survey):
        raise InvalidRequest(f"The token holds a {label_of(name, number)} already.")
    seen = survey.view.memory.versions.get(label_of(name, number), Seen(""))
    if seen.id not in ("", change.id.hex()):
        raise InvalidRequest(f"This agent knows {label_of(name, number)} as another key.")
    private_half(change.id, survey.scan.objects)
    return [Step(Action.ADOPT, name, number, settings, id=change.id)]


def _holder(id_: bytes, survey: Survey) -> str:
    """The version under which a `CKA_ID` is recorded, or which has such objects; "" if none."""
    for label, found in survey.sight.evidence.items():
        owner, _ = name_and_number(label)
        if not found.records and found.of(id_) and owner in survey.view.wanted:
            return label
        if found.records and is_recorded(label, id_, survey):
            return label
    return ""
