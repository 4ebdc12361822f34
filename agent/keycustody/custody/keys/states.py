"""The states of a key version, and how it may go from one to another: one table.

| state | may be used to |
| --- | --- |
| `active` | do everything that the key is for |
| `retired` | verify, unwrap and decrypt: what exists can be read, nothing new is made |
| `revoked` | nothing |
| `destroyed` | nothing; its objects are gone, its record stays |

There is no way back: records are only ever added, and the worst wins. Pure.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from keycustody.errors import InvalidTransition
from keycustody.formats.state import State

#: From each state, where a version may go.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.ACTIVE: frozenset({State.RETIRED, State.REVOKED}),
    State.RETIRED: frozenset({State.REVOKED}),
    State.REVOKED: frozenset({State.DESTROYED}),
    State.DESTROYED: frozenset(),
}

#: What a version may be used for by requests that change nothing for it; new uses need `active`.
RETIRED_MAY = frozenset({"unwrap", "decrypt", "rewrap"})

_SECONDS_PER_DAY = 86_400


def check(label: str, before: State, after: State) -> None:
    """Raise `InvalidTransition` unless a version may go from one state to the other."""
    if after in TRANSITIONS[before]:
        return
    first = " Revoke it first." if after is State.DESTROYED else ""
    raise InvalidTransition(f"{label} is {before}, and cannot become {after}.{first}")


def worse(*states: State) -> State:
    """Return the worst of some states."""
    return max(states, key=lambda state: state.rank)


def may(state: State, operation: str) -> bool:
    """May a version in that state be used for that operation?"""
    return state is State.ACTIVE or (state is State.RETIRED and operation in RETIRED_MAY)


# -- time ------------------------------------------------------------------------------------------


def stamp(now: datetime) -> str:
    """Return a time as state records have it."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(time: str) -> datetime | None:
    """Return the moment of a record's time; None if there is none, or it is no date at all."""
    try:
        return datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def seconds_since(time: str, now: datetime) -> float | None:
    """Return how long ago a record's time is; None if that is not known."""
    then = moment(time)
    return None if then is None else (now - then).total_seconds()


def after_days(time: str, days: int) -> str:
    """Return the time so many days after a record's; "" if that is not known."""
    then = moment(time)
    return "" if then is None else stamp(then + timedelta(days=days))


def age_days(created: str, now: datetime) -> float | None:
    """Return the age of a version in days; None if it is not known."""
    seconds = seconds_since(created, now)
    return None if seconds is None else seconds / _SECONDS_PER_DAY


def days_to_rotation(created: str, rotation_days: int | None, now: datetime) -> float | None:
    """Return the days until a key whose newest version was made then is due; negative if it is
    overdue, None if its settings name no period or its age is not known."""
    age = age_days(created, now)
    return None if rotation_days is None or age is None else rotation_days - age
