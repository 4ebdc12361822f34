"""Versions made and moved on with the token's own frames, beside the running agent."""

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from keycustody.config import load
from keycustody.daemon.wiring import pool
from keycustody.formats import state
from keycustody.formats.state import State, StateRecord
from keycustody.token.api import CreateVersion, KeyRef, Scan, Witness, WriteData
from keycustody.token.attributes import STATE_APPLICATION
from tests.integration.command import Command

ALGORITHM = "AES_256_HMAC_SHA_256"


def create(command: Command, name: str, number: int) -> StateRecord:
    """Make a version of a `wrap` key, active."""
    label, id_ = f"{name}.v{number}", secrets.token_bytes(16)

    async def work() -> StateRecord:
        async with pool(load(command.config), None, 1) as token:
            await token.call(CreateVersion(label, id_, "wrap", ALGORITHM), timeout=60)
            witnessed = await token.call(Witness(KeyRef(label, id_, "wrap", ALGORITHM)), timeout=60)
            return StateRecord(
                v=1,
                name=name,
                version=number,
                id=id_.hex(),
                purpose="wrap",
                algorithm=ALGORITHM,
                public_sha256="",
                witness=witnessed.witness.hex(),
                state=State.ACTIVE,
                time=_now(),
            )

    record = asyncio.run(work())
    write(command, record)
    return record


def recorded(command: Command, name: str, number: int) -> StateRecord:
    """The record that a version was made with."""

    async def work() -> StateRecord:
        async with pool(load(command.config), None, 1) as token:
            scan = await token.call(Scan(), timeout=60)
        label = f"{name}.v{number}"
        found = (o for o in scan.objects if o.application == STATE_APPLICATION)
        return state.decode(next(o.value for o in found if o.label == label))

    return asyncio.run(work())


def write(command: Command, record: StateRecord) -> None:
    """Add a state record to the token."""

    async def work() -> None:
        async with pool(load(command.config), None, 1) as token:
            label = f"{record.name}.v{record.version}"
            value = state.encode(record)
            await token.call(WriteData(STATE_APPLICATION, label, value), timeout=60)

    asyncio.run(work())


def until(reached: Callable[[], bool]) -> None:
    """Wait until the agent's scans have come to that."""
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.1)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
