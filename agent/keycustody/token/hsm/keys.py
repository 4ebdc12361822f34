"""Keys, found on the token and believed only when they prove themselves (docs/adr/0007).

A key version is served only if the private objects that share its label or its `CKA_ID` are
exactly those that `keycustody.token.attributes` describes, its public key is the one that the state
record pins, and private and public key belong together (see `proof`). Handles are kept: finding a
key costs milliseconds on a full token, and a signature 50 microseconds.

Objects that are not `CKA_PRIVATE` are not even looked at: anybody on the machine can make them.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pkcs11
from pkcs11.constants import Attribute

from keycustody.algorithms import KEYS, Purpose
from keycustody.errors import KeyNotFound, KeyNotTrusted, UnsupportedByToken
from keycustody.token.api import FoundObject, KeyRef
from keycustody.token.attributes import amiss, objects_of, unaccepted
from keycustody.token.hsm import proof
from keycustody.token.hsm.failures import STALE_HANDLE
from keycustody.token.hsm.loaded import LoadedKey
from keycustody.token.hsm.objects import (
    KEY_KINDS,
    describe,
    find,
    kind_of,
    looked,
    public_key,
    read,
)
from keycustody.token.profiles import Profile

Result = TypeVar("Result")

#: How long a listing serves: less than any interval between scans, which look at everything.
_LISTED_SECONDS = 1.0
#: So many keys are looked for one by one within that time, before everything is listed.
_SINGLE_LOADS = 3


@dataclass(frozen=True, slots=True)
class Listing:
    """All private key objects of a moment, by label and by ID.

    A search costs a token time for each object that it holds, so that loading all of many keys one
    by one would take time with their square.
    """

    made: float
    labelled: dict[str, list[Any]]
    numbered: dict[bytes, list[Any]]

    @classmethod
    def of_session(cls, session: pkcs11.Session) -> "Listing":
        """Look at all of the token."""
        listing = cls(time.monotonic(), defaultdict(list), defaultdict(list))
        for one in find(session, PRIVATE=True):
            if kind_of(one) in KEY_KINDS:
                told = read(one, (Attribute.LABEL, Attribute.ID))
                listing.labelled[told.get(Attribute.LABEL, "")].append(one)
                listing.numbered[told.get(Attribute.ID, b"")].append(one)
        return listing

    def of(self, ref: KeyRef) -> dict[Any, Any]:
        """Return the objects that have the label or the ID, by handle."""
        both = (*self.labelled.get(ref.label, ()), *self.numbered.get(ref.id, ()))
        return {one.handle: one for one in both}


class KeyRing:
    """The keys that this process has found and checked, by reference."""

    def __init__(self, session: pkcs11.Session, profile: Profile) -> None:
        self._session = session
        self._profile = profile
        self._loaded: dict[KeyRef, LoadedKey] = {}
        self._listed: Listing | None = None
        self._loads: list[float] = []

    def use(self, ref: KeyRef, operation: Callable[[LoadedKey], Result]) -> Result:
        """Do something with a key, loading it first if need be.

        Raises what `load` does. If a handle has died meanwhile, the key is found and checked again
        and the operation done again, once.
        """
        try:
            return operation(self._get(ref))
        except STALE_HANDLE:
            # Any key of the operation may be the one that died; mostly they die together.
            self.forget()
            return operation(self._get(ref))

    def get(self, ref: KeyRef) -> LoadedKey:
        """Return a second key that an operation inside `use` needs."""
        return self._get(ref)

    def load(self, ref: KeyRef, *, fresh: bool = False) -> LoadedKey:
        """Find a key and check it, without believing what was found before. `fresh`: it was made
        just now, and another agent may be making the same version under another `CKA_ID`.

        Raises `KeyNotFound`, or `KeyNotTrusted` with what is amiss.
        """
        if ref.algorithm not in self._profile.keys:
            raise UnsupportedByToken(
                f"Tokens of profile {self._profile.name} have no {ref.algorithm}."
            )
        if ref.adopted is not None:
            return self._load_adopted(ref)
        found, described = self._objects(ref, fresh=fresh)
        if not found:
            raise KeyNotFound(f"The token holds no key {ref.label!r} with that CKA_ID.")
        wanted = objects_of(ref.purpose, ref.algorithm, self._profile)
        findings = amiss(
            wanted,
            ref.id,
            [one for one in described.values() if one.id == ref.id or not fresh],
        )
        findings += (
            f"a {one.kind} object with its CKA_ID is labelled {one.label!r}"
            for one in described.values()
            if one.label != ref.label
        )
        if findings:
            raise KeyNotTrusted(f"Key {ref.label!r} is not trusted: {'; '.join(findings)}.")
        handles = {
            (one.kind, str(one.attributes["KEY_TYPE"])): found[handle]
            for handle, one in described.items()
            if one.id == ref.id
        }
        key = LoadedKey(ref, KEYS[ref.algorithm], handles, self._pinned(ref, handles))
        proof.prove(key, self._session, self._profile)
        return key

    def renew(self, ref: KeyRef) -> None:
        """Find and check a key as `load` does, whatever was found before, and use it from now on.

        If that raises, the key is loaded again when it is next used.
        """
        self._loaded.pop(ref, None)
        self._loaded[ref] = self.load(ref)

    def _load_adopted(self, ref: KeyRef) -> LoadedKey:
        """Find a key that was on the token before us. Its public key is what the record says, and
        proves itself; public objects are not looked at."""
        assert ref.adopted is not None
        found = [
            one for one in find(self._session, ID=ref.id, PRIVATE=True) if kind_of(one) == "private"
        ]
        if not found:
            raise KeyNotFound(f"The token holds no key {ref.label!r} with that CKA_ID.")
        described = [describe(one, self._profile) for one in found]
        findings = unaccepted(ref.purpose, ref.algorithm, ref, described, self._profile)
        if findings:
            raise KeyNotTrusted(f"Key {ref.label!r} is not trusted: {'; '.join(findings)}.")
        public = ref.adopted.public_key
        if hashlib.sha256(public).digest() != ref.public_sha256:
            raise KeyNotTrusted(f"The record of key {ref.label!r} contradicts itself.")
        handles = {("private", str(described[0].attributes["KEY_TYPE"])): found[0]}
        key = LoadedKey(ref, KEYS[ref.algorithm], handles, public)
        proof.prove(key, self._session, self._profile)
        return key

    def forget(self) -> None:
        """Find and check every key again when it is next used."""
        self._loaded.clear()
        self._listed = None

    def _get(self, ref: KeyRef) -> LoadedKey:
        key = self._loaded.get(ref)
        if key is None:
            key = self._loaded[ref] = self.load(ref)
        return key

    def _objects(
        self, ref: KeyRef, *, fresh: bool
    ) -> tuple[dict[Any, Any], dict[Any, FoundObject]]:
        """Every private key object that has the label or the ID, by handle, and what it shows."""
        if not fresh and (listing := self._listing()) is not None and (found := listing.of(ref)):
            try:
                return found, self._described(found)
            except STALE_HANDLE:
                self._listed = None

        def look() -> tuple[dict[Any, Any], dict[Any, FoundObject]]:
            named = find(self._session, LABEL=ref.label, PRIVATE=True)
            numbered = find(self._session, ID=ref.id, PRIVATE=True)
            # State records share the label, and certificates by custom the ID.
            found = {o.handle: o for o in (*named, *numbered) if kind_of(o) in KEY_KINDS}
            return found, self._described(found)

        return looked(look)

    def _described(self, found: dict[Any, Any]) -> dict[Any, FoundObject]:
        return {handle: describe(one, self._profile) for handle, one in found.items()}

    def _listing(self) -> Listing | None:
        """Return a listing for one of many keys that are loaded at once; None for a single one."""
        now = time.monotonic()
        if self._listed is not None and now - self._listed.made < _LISTED_SECONDS:
            return self._listed
        self._listed = None
        self._loads = [at for at in self._loads if now - at < _LISTED_SECONDS] + [now]
        if len(self._loads) > _SINGLE_LOADS:
            self._listed = looked(lambda: Listing.of_session(self._session))
        return self._listed

    def _pinned(self, ref: KeyRef, handles: dict[tuple[str, str], Any]) -> bytes:
        if Purpose(ref.purpose) is Purpose.WRAP:
            return b""
        holder = next(handle for (kind, _), handle in handles.items() if kind == "public")
        found = public_key(holder, KEYS[ref.algorithm])
        if not found:
            raise KeyNotTrusted(
                f"Key {ref.label!r} is not trusted: its public key is not {ref.algorithm}."
            )
        if hashlib.sha256(found).digest() != ref.public_sha256:
            raise KeyNotTrusted(
                f"Key {ref.label!r} is not trusted: its public key is not the one recorded."
            )
        return found
