"""Floods of denials: a few records, each denial counted, and none for an operation."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from keycustody.config import RateSettings
from keycustody.custody.audit import Denials, Journal, records, verify
from keycustody.errors import AuditUnavailable
from keycustody.formats.audit import AuditRecord
from tests.unit.custody.killed_journal import record
from tests.unit.custody.test_audit import full_disk

DENIED = replace(record("sign"), result="PERMISSION_DENIED", detail="no grant")
RATE = RateSettings(per_second=0.001, burst=3)


async def put(log: Denials, what: AuditRecord, times: int) -> None:
    for _ in range(times):
        await log.append(what)


def test_a_flood_leaves_a_few_records_that_count_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            log = Denials(journal, RATE)
            await put(log, DENIED, 1000)
            await put(log, replace(DENIED, principal="q"), 2)
            await log.flush()
            await log.flush()

    asyncio.run(scenario())
    found = list(records(tmp_path))
    assert [(one.principal, one.count) for one in found] == [
        ("p", 1),
        ("p", 1),
        ("p", 1),
        ("q", 1),
        ("q", 1),
        ("p", 997),
    ]
    assert sum(one.count for one in found) == 1002
    together = found[-1]
    assert (together.operation, together.result) == ("sign", "PERMISSION_DENIED")
    assert together.detail.startswith("997 denials from 2")
    assert together.detail.endswith("not recorded one by one; the first: no grant")
    assert verify(tmp_path).records == 6


@pytest.mark.parametrize(
    ("what", "kept"),
    [
        (replace(DENIED, result="OK"), True),
        (replace(DENIED, result="TOKEN_UNAVAILABLE", grant="g"), True),
        (replace(DENIED, result="CANCELLED", grant="g"), True),
        (replace(DENIED, items=["ab:OK"]), True),
        (replace(DENIED, result="RATE_EXCEEDED"), False),
        (replace(DENIED, result="BUDGET_EXCEEDED", grant="g"), False),
        (replace(DENIED, result="POLICY_VIOLATION", grant="g"), False),
        (replace(DENIED, result="UNAUTHENTICATED"), False),
        (replace(DENIED, result="INVALID_REQUEST"), False),
    ],
)
def test_what_may_be_counted_and_what_always_has_its_record(
    tmp_path: Path, what: AuditRecord, kept: bool
) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            log = Denials(journal, RATE)
            await put(log, what, 50)

    asyncio.run(scenario())
    assert len(list(records(tmp_path))) == (50 if kept else 3)


def test_one_that_was_counted_alone_is_its_own_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            log = Denials(journal, RateSettings(per_second=0.001, burst=1))
            await put(log, DENIED, 2)
            await log.flush()

    asyncio.run(scenario())
    assert [(one.count, one.detail) for one in records(tmp_path)] == [(1, "no grant")] * 2


def test_the_rate_lets_records_through_again(tmp_path: Path) -> None:
    now = [0.0]

    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            log = Denials(journal, RateSettings(per_second=1, burst=1), monotonic=lambda: now[0])
            await put(log, DENIED, 5)
            now[0] = 10.0
            await log.flush()
            await put(log, DENIED, 1)

    asyncio.run(scenario())
    assert [one.count for one in records(tmp_path)] == [1, 4, 1]


def test_a_full_disk_loses_no_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            log = Denials(journal, RATE)
            await put(log, DENIED, 10)
            with full_disk(journal.path, room=100):
                await log.flush()
                refused = log.append(record("sign"))
                with pytest.raises(AuditUnavailable):
                    await refused
                await put(log, DENIED, 5)
            await log.flush()

    asyncio.run(scenario())
    assert sum(one.count for one in records(tmp_path)) == 15
