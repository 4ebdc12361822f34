"""What changes the token: a plan of steps, and one executor for them.

`plan` is pure: a scan and the declared keys in, steps out. `apply` does the steps one by one, each
with a record of its intent before and of its outcome after. It is idempotent: what is there is left
alone, and an interrupted run is finished by the next one, because a version counts only once its
state record is written, which comes last.
"""

import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings
from keycustody.custody.audit import draft
from keycustody.custody.catalogue import own_keys
from keycustody.custody.evidence import (
    Evidence,
    gather,
    has_sentinel,
    label_of,
    name_and_number,
    record_for,
)
from keycustody.custody.operation import AuditLog
from keycustody.errors import InternalError, KeycustodyError, KeyNotTrusted, TokenNotProvisioned
from keycustody.formats import state
from keycustody.token.api import CreateVersion, KeyRef, Scan, Scanned, Token, Witness, WriteData
from keycustody.token.attributes import (
    SENTINEL_APPLICATION,
    SENTINEL_LABEL,
    STATE_APPLICATION,
    amiss,
    objects_of,
)
from keycustody.token.profiles import Profile

#: Seconds that one step may take: generating RSA-4096 in hardware can need a minute.
_STEP_TIMEOUT = 300.0


class Action(StrEnum):
    """What a step does."""

    MARK = "mark"
    CREATE = "create"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Step:
    """One change to the token."""

    action: Action
    name: str = ""
    number: int = 0
    settings: KeySettings | None = None
    done: bool = False

    def describe(self) -> str:
        """Say in a few words what the step does."""
        if self.settings is None:
            return "mark the token as provisioned by keycustody"
        what = f"{self.settings.algorithm} for {self.settings.purpose.value}"
        if self.action is Action.CREATE:
            return f"create {label_of(self.name, self.number)}: {what}"
        return f"record {label_of(self.name, self.number)}: {what}, made by an interrupted run"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who administers, and by which rules, for the record."""

    principal: str
    rules: str


def command_line(rules: str) -> Actor:
    """Return the actor of a command: the operating system's user."""
    return Actor(f"uid:{os.geteuid()}", rules)


def plan(scan: Scanned, declared: Mapping[str, KeySettings], profile: Profile) -> list[Step]:
    """Return the steps that make the declared keys that are missing.

    Raises `TokenNotProvisioned` if the token has state records and no sentinel (then the scan saw
    too little), and `KeyNotTrusted` if there is something under a declared name that is not what an
    interrupted run leaves behind.
    """
    evidence = gather(scan)
    steps = []
    if profile.data_objects and not has_sentinel(scan):
        if any(found.records for found in evidence.values()):
            raise TokenNotProvisioned(
                "The token shows state records and no sentinel, so it shows only part of what it "
                "holds. Nothing was changed; look at the token first."
            )
        steps.append(Step(Action.MARK))
    for name, settings in {**own_keys(profile), **declared}.items():
        steps += _missing(name, settings, evidence, profile)
    return steps


def _missing(
    name: str, settings: KeySettings, evidence: Mapping[str, Evidence], profile: Profile
) -> list[Step]:
    found = {
        name_and_number(label)[1]: what
        for label, what in evidence.items()
        if name_and_number(label)[0] == name
    }
    if not found:
        return [Step(Action.CREATE, name, 1, settings)]
    steps = []
    for number, what in found.items():
        if what.records or not profile.data_objects:
            continue
        wanted = objects_of(settings.purpose, settings.algorithm, profile)
        reasons = amiss(wanted, what.objects[0].id, what.objects)
        if reasons:
            raise KeyNotTrusted(
                f"{label_of(name, number)} has no state record, and is not as keycustody makes "
                f"keys: {'; '.join(reasons)}. Remove it with the token's own tools."
            )
        steps.append(Step(Action.RECORD, name, number, settings))
    return steps


async def apply(
    steps: Sequence[Step], token: Token, profile: Profile, audit: AuditLog, actor: Actor
) -> list[Step]:
    """Do the steps in order, each recorded as intent and as outcome; returns them done."""
    done = []
    for step in steps:
        async with recorded(
            audit, actor, "apply", step.describe(), key=step.name, version=step.number
        ):
            await _do(step, token, profile)
        done.append(replace(step, done=True))
    return done


@asynccontextmanager
async def recorded(
    audit: AuditLog, actor: Actor, operation: str, what: str, *, key: str = "", version: int = 0
) -> AsyncIterator[None]:
    """Record the intent, run the block, record its outcome, whatever it is."""
    request = secrets.token_hex(16)

    async def record(detail: str, result: str = "OK") -> None:
        await audit.append(
            draft(
                request=request,
                principal=actor.principal,
                via="command",
                operation=operation,
                rules=actor.rules,
                key=key,
                version=version,
                result=result,
                detail=f"{detail}: {what}",
            )
        )

    await record("intent")
    try:
        yield
    except KeycustodyError as error:
        await record("failed", error.code)
        raise
    except BaseException:
        await record("failed", InternalError.code)
        raise
    await record("done")


async def _do(step: Step, token: Token, profile: Profile) -> None:
    if step.settings is None:
        value = SENTINEL_APPLICATION.encode()
        await token.call(
            WriteData(SENTINEL_APPLICATION, SENTINEL_LABEL, value), timeout=_STEP_TIMEOUT
        )
        return
    label = label_of(step.name, step.number)
    if step.action is Action.CREATE:
        request = CreateVersion(
            label, secrets.token_bytes(16), step.settings.purpose, step.settings.algorithm
        )
        await token.call(request, timeout=_STEP_TIMEOUT)
    if not profile.data_objects:
        return
    # Look again: the record is about what the token shows, not about what we think we made.
    found = gather(await token.call(Scan(), timeout=_STEP_TIMEOUT))[label]
    record = record_for(
        step.name,
        step.number,
        step.settings,
        found.objects,
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    wanted = objects_of(record.purpose, record.algorithm, profile)
    if reasons := amiss(wanted, bytes.fromhex(record.id), found.objects):
        raise KeyNotTrusted(f"{label} was not made as asked: {'; '.join(reasons)}.")
    if step.settings.purpose is Purpose.WRAP:
        ref = KeyRef(label, bytes.fromhex(record.id), record.purpose, record.algorithm)
        witnessed = await token.call(Witness(ref), timeout=_STEP_TIMEOUT)
        record = msgspec.structs.replace(record, witness=witnessed.witness.hex())
    await token.call(
        WriteData(STATE_APPLICATION, label, state.encode(record)), timeout=_STEP_TIMEOUT
    )
