"""Two agents make one version at once, in the worst order, and agree on one of them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings, Limits
from keycustody.custody.access.rules import Rules
from keycustody.custody.audit import Journal
from keycustody.custody.keys.memory import MemoryFile
from keycustody.custody.lifecycle import Apply, Executor, Report, command_line
from keycustody.token import profiles
from keycustody.token.api import Created, CreateVersion, Reply, Request, Scan, Token, WriteData
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool
from tests.integration.token.intrude import intrude
from tests.softhsm import SoftHsmToken

RELEASE = KeySettings(purpose=Purpose.SIGN, algorithm="EC_P256")
LOW, HIGH = b"\x01" * 16, b"\xff" * 16
Pace = Callable[[str], Awaitable[object]]


@dataclass(frozen=True)
class Paced:
    """A token that is asked, and answers, when `pace` lets it."""

    token: Token
    pace: Pace

    async def call(self, request: Request[Reply], *, timeout: float) -> Reply:
        named = isinstance(request, CreateVersion | WriteData | Scan)
        if named:
            await self.pace(f"before {type(request).__name__}")
        reply = await self.token.call(request, timeout=timeout)
        if named:
            await self.pace(f"after {type(request).__name__}")
        return reply


@dataclass(frozen=True)
class Late(Paced):
    """One whose worker had seen that the label is free before another agent took it."""

    store: SoftHsmToken

    async def call(self, request: Request[Reply], *, timeout: float) -> Reply:
        if not isinstance(request, CreateVersion):
            return await super().call(request, timeout=timeout)
        await self.pace("before CreateVersion")
        pair = "make_pair", request.label, request.id, request.purpose
        public_key = await asyncio.to_thread(intrude, self.store, *pair, pin=True)
        return cast("Reply", Created(public_key))


@dataclass(frozen=True)
class Agents:
    """Makes executors with a state folder each, on one token."""

    token: SoftHsmToken
    folder: Path
    stack: AsyncExitStack

    async def executor(
        self, name: str, keys: dict[str, KeySettings], pace: Pace, *, late: bool = False
    ) -> Executor:
        state = self.folder / name
        state.mkdir(mode=0o700)
        settings = self.token.settings(workers=1)
        pool = Pool(settings, lambda: self.token.user_pin, PinGuard(state))
        await self.stack.enter_async_context(pool)
        journal = await self.stack.enter_async_context(Journal(state))
        rules = Rules("", (), keys, Limits())
        profile = profiles.load("softhsm2")
        paced = Late(pool, pace, self.token) if late else Paced(pool, pace)
        memory = MemoryFile(state)
        return Executor(paced, profile, journal, memory, lambda: rules, journal.clock.utc)


async def at_once(_step: str) -> None:
    """No pace."""


def test_the_lower_id_wins_though_the_other_was_recorded_first(
    fresh_token: SoftHsmToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    high, low, after = asyncio.run(_race(fresh_token, tmp_path, monkeypatch))
    assert [step.note for step in high.steps] == ["another agent made it at the same moment"]
    assert [step.note for step in low.steps] == [""]
    assert (after.steps, after.findings) == ((), ())


async def _race(
    token: SoftHsmToken, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Report, Report, Report]:
    planned, high_looked, low_looked, recorded, looks_again = (asyncio.Event() for _ in range(5))

    async def pace_high(step: str) -> None:
        if step == "after Scan":
            await planned.wait()
            if recorded.is_set():
                looks_again.set()
        elif step == "before WriteData" and not recorded.is_set():
            high_looked.set()
            await low_looked.wait()
        elif step == "after WriteData":
            recorded.set()

    async def pace_low(step: str) -> None:
        if step == "before CreateVersion":
            planned.set()
            await high_looked.wait()
        elif step == "before WriteData":
            low_looked.set()
            await looks_again.wait()

    async with AsyncExitStack() as stack:
        agents = Agents(token, folder, stack)
        actor = command_line("")
        await (await agents.executor("first", {}, at_once)).run(Apply(), actor)
        keys = {"release": RELEASE}
        one = await agents.executor("high", keys, pace_high)
        two = await agents.executor("low", keys, pace_low, late=True)
        ids = iter([LOW, HIGH])
        chosen = SimpleNamespace(token_bytes=lambda _size: next(ids))
        monkeypatch.setattr("keycustody.custody.lifecycle.executor.secrets", chosen)
        async with asyncio.timeout(30):
            high, low = await asyncio.gather(one.run(Apply(), actor), two.run(Apply(), actor))
        after = await one.run(Apply(), actor, dry_run=True)
    return high, low, after
