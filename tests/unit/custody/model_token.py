"""A token that is a list of objects, for many agents at once, in one process.

It passes what tests/contract/test_provisioning.py asks of SoftHSM. `Seat` is one agent's way to it:
it can be held up before and after each change, and between the objects of one version, where a real
process can be killed or overtaken by another.
"""

import asyncio
import dataclasses
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from keycustody.algorithms import Purpose
from keycustody.errors import InvalidRequest, KeyNotFound, KeyNotTrusted, UnsupportedByToken
from keycustody.token.api import (
    Created,
    CreateVersion,
    DestroyObjects,
    Done,
    FoundObject,
    Inspect,
    KeyRef,
    Reply,
    Request,
    Scan,
    Scanned,
    SelfTest,
    Witness,
    Witnessed,
    WriteData,
)
from keycustody.token.attributes import amiss, objects_of, unaccepted
from keycustody.token.profiles import Profile
from tests.unit.custody.evidence import PROFILE, data, public_key

_KEY_KINDS = ("private", "public", "secret")
_PUBLIC_KEYS = [public_key(seed) for seed in range(1, 257)]

Turn = Callable[[], Awaitable[None]]


async def _no_turn() -> None:
    pass


@dataclasses.dataclass(slots=True)
class ModelToken:
    """Does what `keycustody.token.hsm.provisioning` does. `objects` is all it holds."""

    profile: Profile = PROFILE
    objects: list[FoundObject] = dataclasses.field(default_factory=list)
    _made: int = 0

    async def call(self, request: Request[Reply], *, timeout: float = 0.0) -> Reply:
        """As `keycustody.token.api.Token.call`."""
        reply: Reply = await self.do(request, _no_turn)
        return reply

    async def do(self, request: Request[Any], turn: Turn) -> Any:
        """Answer a request; `turn` is awaited wherever others may come between."""
        match request:
            case Scan():
                return Scanned(
                    [one for one in self.objects if _private(one)], self._public_labels()
                )
            case Inspect():
                return Scanned([one for one in self._keys() if one.id == request.id], [])
            case WriteData():
                if not self.profile.data_objects:
                    raise UnsupportedByToken("This token has no data objects.")
                self.objects.append(data(request.application, request.label, request.value))
                return Done()
            case CreateVersion():
                return await self._create(request, turn)
            case Witness():
                self._load(request.key)
                self._made += 1
                return Witnessed(hashlib.sha512(b"%d" % self._made).digest() + bytes(8))
            case SelfTest():
                self._load(request.key)
                return Done()
            case DestroyObjects():
                return await self._destroy(request, turn)
        raise AssertionError(request)

    def _keys(self) -> list[FoundObject]:
        return [one for one in self.objects if one.kind in _KEY_KINDS]

    def _public_labels(self) -> list[str]:
        return [one.label for one in self.objects if not _private(one)]

    async def _create(self, request: CreateVersion, turn: Turn) -> Created:
        if any(one.label == request.label for one in self._keys() if _private(one)):
            raise InvalidRequest("The token holds such a key already.")
        if any(one.id == request.id for one in self._keys() if _private(one)):
            raise InvalidRequest("The token holds such an ID already.")
        self._made += 1
        public = _PUBLIC_KEYS[self._made]
        for wanted in objects_of(request.purpose, request.algorithm, self.profile):
            await turn()
            shown = public if wanted.kind == "public" else b""
            self.objects.append(
                FoundObject(wanted.kind, request.label, request.id, wanted.expected(), shown)
            )
        return Created(b"" if request.purpose == Purpose.WRAP else public)

    async def _destroy(self, request: DestroyObjects, turn: Turn) -> Done:
        named = (request.label, request.id)
        mine = [one for one in self._keys() if (one.label, one.id) == named]
        for one in sorted(mine, key=lambda one: one.kind == "public"):
            await turn()
            # Another agent may do the same at the same time.
            self.objects = [left for left in self.objects if left is not one]
        return Done()

    def _load(self, ref: KeyRef) -> None:
        """Find a key as a worker does before it uses it."""
        label = ref.label if ref.adopted is None else ref.adopted.label
        named = [one for one in self._keys() if one.label == label and _private(one)]
        if not named:
            raise KeyNotFound("The token has no such key.")
        if ref.adopted is not None:
            reasons = unaccepted(ref.purpose, ref.algorithm, ref, named, self.profile)
        else:
            wanted = objects_of(ref.purpose, ref.algorithm, self.profile)
            reasons = amiss(wanted, ref.id, named)
        shown = b"" if ref.adopted is None else ref.adopted.public_key
        public = next((o.public_key for o in named if o.id == ref.id and o.public_key), shown)
        pinned = hashlib.sha256(public).digest() if public else b""
        if reasons or ref.public_sha256 not in (b"", pinned):
            raise KeyNotTrusted("It is not that key.")


def _private(found: FoundObject) -> bool:
    return found.kind == "data" or found.attributes.get("PRIVATE") is True


def strange_pair(label: str, id_: bytes, seed: int = 99) -> list[FoundObject]:
    """A key pair to sign with as another program makes it: it may leave the token."""
    pair = objects_of(Purpose.SIGN, "EC_P256", PROFILE)
    public = public_key(seed)
    weaker = {"EXTRACTABLE": True, "NEVER_EXTRACTABLE": False}
    return [
        FoundObject(
            one.kind,
            label,
            id_,
            one.expected() | (weaker if one.kind == "private" else {"PRIVATE": False}),
            public if one.kind == "public" else b"",
        )
        for one in pair
    ]


class Seat:
    """One agent's way to the token. `left` is how many turns it may take before it is held up;
    `asked` is told of each change before it is made."""

    def __init__(self, token: ModelToken, asked: Callable[[Request[Any]], None]) -> None:
        self._token = token
        self._asked = asked
        self._go = asyncio.Event()
        self.left: float = float("inf")
        self.held = False

    async def call(self, request: Request[Reply], *, timeout: float) -> Reply:
        """As `keycustody.token.api.Token.call`."""
        await self._turn()
        self._asked(request)
        reply: Reply = await self._token.do(request, self._turn)
        await self._turn()
        return reply

    def go_on(self, turns: float) -> None:
        """Let it take so many turns more."""
        self.left = turns
        self.held = False
        self._go.set()

    async def _turn(self) -> None:
        while self.left <= 0:
            self.held = True
            self._go.clear()
            await self._go.wait()
        self.left -= 1
