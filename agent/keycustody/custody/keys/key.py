"""A key as custody uses it: its versions that can be believed, and which of them serves what."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from keycustody.algorithms import DECRYPTIONS, KEYS, Purpose, Status, signatures_for
from keycustody.config import PURPOSE_OF, KeySettings
from keycustody.custody.keys import states
from keycustody.errors import KeycustodyError, KeyNotFound, KeyPurpose, KeyRevoked
from keycustody.formats.state import State
from keycustody.token.api import KeyRef
from keycustody.token.profiles import Profile


@dataclass(frozen=True, slots=True)
class Version:
    """One version that can be believed. `since` is when it got its state; `waiting`, whether it is
    still too new to be used where no version is named; `weaker`, what is recorded as weaker than in
    keys that we make."""

    number: int
    ref: KeyRef
    state: State
    created: str
    public_key: bytes
    since: str = ""
    waiting: bool = False
    weaker: tuple[str, ...] = ()


class Key(Struct, frozen=True):
    """A declared key and its versions, oldest first. `problem` says why there are none."""

    name: str
    declared: KeySettings
    versions: tuple[Version, ...]
    problem: KeycustodyError | None = None
    algorithms: tuple[str, ...] = ()
    #: Given operation, version and when it was made: raises if that is too long ago.
    check_age: Callable[[str, int, str], None] | None = None

    @property
    def servable(self) -> tuple[Version, ...]:
        """The versions that may be used for something."""
        return tuple(v for v in self.versions if v.state in (State.ACTIVE, State.RETIRED))

    @property
    def revoked(self) -> tuple[Version, ...]:
        """The versions that may be used for nothing: revoked or destroyed."""
        return tuple(v for v in self.versions if v.state.rank >= State.REVOKED.rank)

    @property
    def current(self) -> Version | None:
        """The version that is used where none is named: the newest active one that every agent
        knows."""
        active = [v for v in self.versions if v.state is State.ACTIVE and not v.waiting]
        return active[-1] if active else None

    @property
    def condition(self) -> str:
        """ "ready", or what keeps it from being used in full."""
        if self.problem is not None:
            return self.problem.message
        if self.current is None:
            return f"No version is active: `keycustody keys rotate {self.name}` makes one."
        return "ready"

    def version(self, number: int, operation: str) -> Version:
        """Return the version to use: that number, or for 0 the current one.

        Raises `KeyPurpose` if the key is for something else, `KeyRevoked` if the version was
        revoked or destroyed, `KeyNotFound` if there is no such version or its state forbids the
        operation, `KeyNotTrusted` if what is there is not ours, `PolicyViolation` if it is too old
        for that.
        """
        purpose = PURPOSE_OF[operation]
        if self.declared.purpose is not purpose:
            raise KeyPurpose(
                f"Key {self.name!r} is for {self.declared.purpose.value}; {operation} needs a key "
                f"for {purpose.value}."
            )
        if self.problem is not None:
            raise type(self.problem)(self.problem.message)
        chosen = self._chosen(number, operation)
        if self.check_age is not None:
            self.check_age(operation, chosen.number, chosen.created)
        return chosen

    def _chosen(self, number: int, operation: str) -> Version:
        if number == 0 and (current := self.current) is not None:
            return current
        found = [v for v in self.versions if number in (0, v.number)]
        fitting = [v for v in found if states.may(v.state, operation)]
        if fitting:
            return fitting[-1]
        which = f"version {number}" if number else "version"
        if found and all(v.state.rank >= State.REVOKED.rank for v in found):
            raise KeyRevoked(f"Key {self.name!r} has no {which} that was not revoked or destroyed.")
        raise KeyNotFound(f"Key {self.name!r} has no {which} that may be used to {operation}.")


def newest_active(key: Key) -> Version | None:
    """Return the newest active version, waiting or not."""
    active = [version for version in key.versions if version.state is State.ACTIVE]
    return active[-1] if active else None


def rotate_by(key: Key) -> str:
    """Return when a key is to be rotated, as record times are; "" if its settings do not say."""
    newest, days = newest_active(key), key.declared.rotation_days
    return "" if newest is None or days is None else states.after_days(newest.created, days)


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
