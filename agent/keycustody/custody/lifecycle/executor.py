"""The one executor of steps: for the agent's operators and for offline commands alike.

Rules:

* One change at a time. Each step has a durable record of its intent before it and of its outcome
  after it.
* A step looks again before it writes a record: the record is about what the token shows, not about
  what we think we made.
* Two agents that make one version at once agree: what has a record wins, else the lowest `CKA_ID`;
  the loser destroys its own objects, and nobody else's. One that wrote its record meanwhile looks
  again, waits for a lower `CKA_ID` to be recorded or gone, and gives way if it was recorded.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec
import structlog

from keycustody.algorithms import Purpose
from keycustody.custody.access.rules import Rules
from keycustody.custody.keys import states
from keycustody.custody.keys.catalogue import remembered
from keycustody.custody.keys.evidence import (
    Doubt,
    Evidence,
    Finding,
    label_of,
    record_for,
    records_of,
    whole_sets,
)
from keycustody.custody.keys.memory import Memory, MemoryFile, Seen
from keycustody.custody.lifecycle import adoption
from keycustody.custody.lifecycle.changes import Change
from keycustody.custody.lifecycle.looking import STEP_TIMEOUT, Lookout
from keycustody.custody.lifecycle.planning import Survey, account_at, is_recorded
from keycustody.custody.lifecycle.recording import Actor, recorded, refused
from keycustody.custody.lifecycle.steps import Action, Step
from keycustody.custody.operation import AuditLog
from keycustody.errors import (
    InvalidRequest,
    KeycustodyError,
    KeyNotFound,
    KeyNotTrusted,
)
from keycustody.formats import state
from keycustody.formats.state import State, StateRecord
from keycustody.token.api import (
    CreateVersion,
    DestroyObjects,
    FoundObject,
    KeyRef,
    Reply,
    Request,
    Token,
    Witness,
    WriteData,
)
from keycustody.token.attributes import SENTINEL_APPLICATION, SENTINEL_LABEL, STATE_APPLICATION
from keycustody.token.profiles import Profile

#: How often, and after how many seconds, a version that another agent is making is looked at again.
_LOOKS, _PAUSE = 10, 0.2
#: How often a version that is being made is asked for.
_TRIES = 3

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, or would be, and what is amiss."""

    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Executor:
    """Changes the token. `rules` gives those in force, `clock` the time, and `changed` is told when
    a change was made, or turned out to be made already."""

    token: Token
    profile: Profile
    audit: AuditLog
    memory: MemoryFile
    rules: Callable[[], Rules]
    clock: Callable[[], datetime]
    changed: Callable[[], Awaitable[object]] | None = None
    _look: Lookout = field(init=False)
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        look = Lookout(self.token, self.profile, self.memory, self.rules, self.clock)
        object.__setattr__(self, "_look", look)

    async def run(self, change: Change, actor: Actor, *, dry_run: bool = False) -> Report:
        """Do a change, or say what it would do.

        Raises what `planning.plan` does, and `PolicyViolation` if it would make a version that the
        policy refuses, before anything was changed; and what the token raises in the middle; then
        the same change can be asked for again.
        """
        async with self._busy:
            try:
                steps, survey = await self._look.planned(change)
            except KeycustodyError as error:
                if not dry_run:
                    await refused(self.audit, actor, change, error)
                raise
            if dry_run:
                return Report(steps, survey.sight.drift)
            done = [await self._recorded(step, change.operation, actor) for step in steps]
            survey = await self._look.settled()
            await self.memory.update(lambda memory: _concluded(memory, survey))
            if self.changed is not None:
                # Also without a step: another agent may have made the change since the last scan.
                await self._tell(self.changed)
            return Report(tuple(done), survey.sight.drift)

    async def idle(self) -> None:
        """Wait for the change that is under way, if there is one."""
        async with self._busy:
            pass

    async def _tell(self, changed: Callable[[], Awaitable[object]]) -> None:
        try:
            await changed()
        except KeycustodyError as error:
            # The change was made; the next scan is not far.
            _log.warning("token.scan_failed", code=error.code, reason=error.message)

    async def _recorded(self, step: Step, operation: str, actor: Actor) -> Step:
        async with recorded(
            self.audit, actor, operation, step.text, key=step.key, version=step.version
        ) as notes:
            note = await self._do(step)
            notes.append(note)
        return replace(step, done=True, note=note)

    async def _do(self, step: Step) -> str:
        match step.action:
            case Action.MARK:
                value = SENTINEL_APPLICATION.encode()
                await self._write(SENTINEL_APPLICATION, SENTINEL_LABEL, value)
            case Action.CREATE:
                return await self._create(step)
            case Action.RECORD:
                return await self._settle(step, None)
            case Action.STATE:
                await self._change_state(step)
            case Action.DESTROY:
                await self._destroy(step.label, step.id)
            case Action.DISCARD:
                await self._destroy(step.label, step.id)
                await self.memory.update(lambda memory: memory.ended(step.id))
            case Action.ADOPT:
                return await self._adopt(step)
        return ""

    async def _write(self, application: str, label: str, value: bytes) -> None:
        await self.token.call(WriteData(application, label, value), timeout=STEP_TIMEOUT)

    async def _destroy(self, label: str, id_: bytes) -> None:
        await self.token.call(DestroyObjects(label, id_), timeout=STEP_TIMEOUT)

    # -- making a version --------------------------------------------------------------------------

    async def _create(self, step: Step) -> str:
        assert step.settings is not None
        label, id_ = label_of(step.key, step.version), secrets.token_bytes(16)
        # Before it is made: what an interrupted run leaves must be known as ours.
        await self.memory.update(lambda memory: memory.beginning(label, id_))
        request = CreateVersion(label, id_, step.settings.purpose, step.settings.algorithm)
        try:
            await self._made(request)
        except InvalidRequest:
            # Since the plan was made, somebody else made objects with this label.
            _log.warning("lifecycle.taken", label=label)
        return await self._settle(step, id_)

    async def _settle(self, step: Step, ours: bytes | None) -> str:
        """Look again, agree with other agents on which set is the version, and record it if it is
        ours to record."""
        assert step.settings is not None
        label = label_of(step.key, step.version)
        recorded_ids, whole, found = await self._candidates(step, label)
        winner = min(recorded_ids) if recorded_ids else whole[0]
        if ours is not None and ours != winner and ours not in recorded_ids:
            await self._destroy(label, ours)
        elif winner not in recorded_ids and self.profile.data_objects:
            await self._record(step, found.of(winner))
            if ours == winner and await self._beaten(step, label, ours):
                await self._give_way(step, label, ours)
                winner = b""
        if ours is None:
            return ""
        await self.memory.update(lambda memory: memory.ended(ours))
        return "" if ours == winner else "another agent made it at the same moment"

    async def _candidates(
        self, step: Step, label: str
    ) -> tuple[list[bytes], list[bytes], Evidence]:
        assert step.settings is not None
        for _ in range(_LOOKS):
            survey = await self._look.survey()
            found = survey.sight.evidence.get(label, Evidence((), ()))
            try:
                recorded_ids = sorted(records_of(step.key, step.version, found))
            except Doubt as doubt:
                raise KeyNotTrusted(f"{label}: {doubt.text}") from doubt
            whole = whole_sets(found, step.settings, self.profile)
            if recorded_ids or whole:
                return recorded_ids, whole, found
            await asyncio.sleep(_PAUSE)
        raise KeyNotTrusted(
            f"{label} is not whole: somebody else put objects under that label. Look at the token."
        )

    async def _beaten(self, step: Step, label: str, ours: bytes) -> bool:
        """Did another agent, which looked before our record was there, record a lower `CKA_ID`?

        Whoever may still do so made its objects before it looked: they are there to be seen now.
        Should they not be, nothing serves wrongly: of two recorded sets everybody takes the lowest.
        """
        for _ in range(_LOOKS):
            recorded_ids, whole, _ = await self._candidates(step, label)
            if recorded_ids and recorded_ids[0] < ours:
                return True
            if not any(id_ < ours for id_ in whole):
                return False
            await asyncio.sleep(_PAUSE)
        return False  # It was interrupted; its next run sees our record and clears its own away.

    async def _give_way(self, step: Step, label: str, ours: bytes) -> None:
        """Record our set as destroyed, and then destroy it: it never served."""
        found = (await self._look.survey()).sight.evidence[label]
        record = records_of(step.key, step.version, found)[ours][0]
        gone = msgspec.structs.replace(
            record,
            state=State.DESTROYED,
            time=states.stamp(self.clock()),
            reason="another agent made this version at the same moment",
        )
        await self._write(STATE_APPLICATION, label, state.encode(gone))
        await self._destroy(label, ours)

    async def _record(self, step: Step, objects: tuple[FoundObject, ...]) -> None:
        assert step.settings is not None
        time = states.stamp(self.clock())
        record = record_for(step.key, step.version, step.settings, objects, time=time)
        label = label_of(step.key, step.version)
        if step.settings.purpose is Purpose.WRAP:
            ref = KeyRef(label, bytes.fromhex(record.id), record.purpose, record.algorithm)
            witnessed = await self._made(Witness(ref))
            record = msgspec.structs.replace(record, witness=witnessed.witness.hex())
        await self._write(STATE_APPLICATION, label, state.encode(record))

    async def _made(self, request: Request[Reply]) -> Reply:
        """Ask for something about a version that is being made. SoftHSM may not show all of it for
        a moment while another process changes the token, so it is asked for more than once."""
        for _ in range(_TRIES - 1):
            try:
                return await self.token.call(request, timeout=STEP_TIMEOUT)
            except (KeyNotFound, KeyNotTrusted):
                await asyncio.sleep(_PAUSE)
        return await self.token.call(request, timeout=STEP_TIMEOUT)

    async def _adopt(self, step: Step) -> str:
        record = await adoption.record_of(step, self.token, self.profile, self.clock())
        label = label_of(step.key, step.version)
        await self._write(STATE_APPLICATION, label, state.encode(record))
        return f"weaker than ours: {', '.join(record.weaker) or 'nothing'}"

    # -- changing a state --------------------------------------------------------------------------

    async def _change_state(self, step: Step) -> None:
        label = label_of(step.key, step.version)
        time = step.since or states.stamp(self.clock())
        if self.profile.data_objects:
            account = account_at(step.key, step.version, await self._look.survey())
            record: StateRecord = msgspec.structs.replace(
                account.record, state=step.state, time=time, reason=step.reason
            )
            await self._write(STATE_APPLICATION, label, state.encode(record))
        seen = Seen(time, "", step.state, time, step.reason)
        await self.memory.update(lambda memory: memory.noting(label, seen))


def _concluded(memory: Memory, survey: Survey) -> Memory:
    """What is remembered after a change: all that is seen, and of what was begun only what is still
    there without a record."""
    now = survey.view.now
    assert now is not None
    memory = remembered(memory, survey.sight.keys, now)
    for id_, label in list(memory.making.items()):
        made = bytes.fromhex(id_)
        found = survey.sight.evidence.get(label)
        if found is None or not found.of(made) or is_recorded(label, made, survey):
            memory = memory.ended(made)
    return memory
