"""Agents on one model token, with the real planning, executor, catalogue and memory.

Each can be held up at any call of the token, killed there, or overtaken by the other. What they
change is watched (`Watch`): the rules that no single look at the token can show.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from keycustody.config import Limits
from keycustody.config.keys import KeySettings
from keycustody.custody.access.rules import Rules
from keycustody.custody.keys.catalogue import Catalogue, build, remembered
from keycustody.custody.keys.evidence import label_of
from keycustody.custody.keys.memory import MemoryFile
from keycustody.custody.keys.states import moment
from keycustody.custody.lifecycle import Actor, Change, Executor, Report
from keycustody.errors import KeycustodyError, TokenNotProvisioned
from keycustody.formats import state
from keycustody.formats.audit import AuditRecord, Head
from keycustody.formats.state import State, StateRecord
from keycustody.token.api import CreateVersion, DestroyObjects, Request, Scan, WriteData
from keycustody.token.attributes import STATE_APPLICATION
from tests.unit.custody.model_token import ModelToken, Seat

INTERVAL = 15.0
_ACTOR = Actor("tester", "")


@dataclass
class World:
    """The time, the token, and what the agents have ever served."""

    declared: dict[str, KeySettings]
    token: ModelToken = field(default_factory=ModelToken)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    #: By label, the `CKA_ID`s that any agent used where no version was named.
    served: dict[str, set[bytes]] = field(default_factory=dict)

    def records(self, label: str, id_: bytes) -> list[StateRecord]:
        """The token's records about one version, decoded with nothing else in between."""
        found = (
            state.decode(one.value)
            for one in self.token.objects
            if one.application == STATE_APPLICATION and one.label == label
        )
        return [record for record in found if bytes.fromhex(record.id) == id_]

    def records_by_id(self, id_: bytes) -> list[StateRecord]:
        """The same, whatever its label: an adopted key keeps its own."""
        labels = {one.label for one in self.token.objects}
        return [record for label in labels for record in self.records(label, id_)]


@dataclass
class Journal:
    """Keeps the details of records, in order; nothing more is asked of it here."""

    details: list[tuple[str, str]] = field(default_factory=list)
    head: Head = field(default_factory=lambda: Head(0, ""))

    async def _append(self, record: AuditRecord) -> None:
        self.details.append((record.request, record.detail))

    def append(self, record: AuditRecord, *, under_way: int = 0) -> Awaitable[None]:
        """As `AuditLog`."""
        return self._append(record)


class Agent:
    """One agent: its memory outlives it, as its state folder does."""

    def __init__(self, world: World, loop: asyncio.AbstractEventLoop) -> None:
        self.world = world
        self.memory = MemoryFile()
        self.journal = Journal()
        self.catalogue: Catalogue | None = None
        self.scanned = world.now
        self.worst: dict[str, State] = {}
        self.task: asyncio.Task[Report] | None = None
        self._loop = loop
        self._rules = Rules("", (), world.declared, Limits(scan_seconds=INTERVAL))
        self.start()

    def start(self) -> None:
        """A new process: what it was doing it does no more."""
        self.seat = Seat(self.world.token, self._watch)
        self.executor = Executor(
            token=self.seat,
            profile=self.world.token.profile,
            audit=self.journal,
            memory=self.memory,
            rules=lambda: self._rules,
            clock=lambda: self.world.now,
            changed=self._scan,
        )

    # -- what it does ------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Is it held up in the middle of a change?"""
        return self.task is not None

    def change(self, change: Change, turns: float) -> Report | None:
        """Begin a change; None if it does not end within so many turns, or is refused."""
        self.seat.go_on(turns)
        self.task = self._loop.create_task(self.executor.run(change, _ACTOR))
        return self.go_on(turns)

    def go_on(self, turns: float) -> Report | None:
        """Go on with the change that is held up."""
        assert self.task is not None
        self.seat.go_on(turns)
        self._loop.run_until_complete(self._until_still(self.task))
        if not self.task.done():
            return None
        done, self.task = self.task, None
        with contextlib.suppress(KeycustodyError):
            return done.result()
        return None

    async def _until_still(self, task: asyncio.Task[Report]) -> None:
        while not task.done() and not self.seat.held:  # noqa: ASYNC110 - whichever comes first
            await asyncio.sleep(0)

    def kill(self) -> None:
        """kill -9, wherever it is, and start it again."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError, KeycustodyError):
                self._loop.run_until_complete(self.task)
            self.task = None
        self.start()
        self.catalogue = None
        self.scan()

    def plan(self, change: Change) -> Report:
        """What a change would do."""
        self.seat.go_on(float("inf"))
        return self._loop.run_until_complete(self.executor.run(change, _ACTOR, dry_run=True))

    def scan(self) -> None:
        """Look at the token as an agent does at intervals, and judge what it would serve."""
        self._loop.run_until_complete(self._scan())

    async def _scan(self) -> None:
        world = self.world
        seen = await world.token.call(Scan())
        try:
            catalogue = build(
                seen,
                world.declared,
                world.token.profile,
                memory=self.memory.memory,
                now=world.now,
                interval=INTERVAL,
            )
        except TokenNotProvisioned:
            return  # it goes on by the last good scan until that is too old
        self.catalogue, self.scanned = catalogue, world.now
        await self.memory.update(lambda memory: remembered(memory, catalogue.keys, world.now))
        self._judge(catalogue)

    # -- what must be so ---------------------------------------------------------------------------

    def _judge(self, catalogue: Catalogue) -> None:
        for key in catalogue.keys.values():
            for version in key.versions:
                label = label_of(key.name, version.number)
                said = [record.state for record in self.world.records(label, version.ref.id)]
                worst = max([*said, self.worst.get(label, State.ACTIVE)], key=lambda s: s.rank)
                assert version.state.rank >= worst.rank, "the worst state wins, and none goes back"
                self.worst[label] = version.state
            active = [v for v in key.versions if v.state is State.ACTIVE]
            assert (key.current is None) is (not active), "one of the active versions serves"
            assert [v.number for v in key.versions] == sorted({v.number for v in key.versions})
            if key.current is not None:
                label = label_of(key.name, key.current.number)
                self.world.served.setdefault(label, set()).add(key.current.ref.id)

    def _watch(self, request: Request[Any]) -> None:
        """Judge what it is about to ask of the token."""
        match request:
            case CreateVersion():
                assert self.memory.memory.making[request.id.hex()] == request.label
            case DestroyObjects():
                records = self.world.records_by_id(request.id)
                ours = request.id.hex() in self.memory.memory.making
                gone = any(record.state is State.DESTROYED for record in records)
                assert gone or (ours and not records), "no other key is destroyed"
            case WriteData(application=application) if application == STATE_APPLICATION:
                record = state.decode(request.value)
                if record.state is State.DESTROYED:
                    assert self._may_be_destroyed(record), "revoked, and it has waited"
            case WriteData():
                pass
            case _:
                return  # changes nothing
        intent = self.journal.details[-1]
        assert intent[1].startswith("intent: "), "no change without a record before it"

    def _may_be_destroyed(self, record: StateRecord) -> bool:
        label = label_of(record.name, record.version)
        if "another agent made this" in record.reason:
            return bytes.fromhex(record.id) not in self.world.served.get(label, ())
        told = self.world.records(label, bytes.fromhex(record.id))
        since = [one.time for one in told if one.state.rank >= State.REVOKED.rank]
        if (
            seen := self.memory.memory.versions.get(label)
        ) and seen.state.rank >= State.REVOKED.rank:
            since.append(seen.since)
        days = timedelta(days=self.world.declared[record.name].destroy_wait_days)
        moments = [then for time in since if (then := moment(time))]
        return any(self.world.now - then >= days for then in moments)
