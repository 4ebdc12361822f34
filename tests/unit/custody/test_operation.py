import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.config import Limits
from keycustody.custody.access.counters import Counters
from keycustody.custody.access.rules import Rules
from keycustody.custody.audit import Head
from keycustody.custody.clock import Clock
from keycustody.custody.items import spread
from keycustody.custody.keys.scanner import Scanner
from keycustody.custody.operation import Caller, Desk
from keycustody.custody.turns import Turns
from keycustody.errors import AuditUnavailable, KeyNotFound
from keycustody.formats.audit import AuditRecord
from keycustody.token.api import Fault, Reply, Request
from tests.unit.custody.evidence import PROFILE

CALLER = Caller("p", "socket", "ab" * 16, time.monotonic() + 60)


@dataclass
class Recorder:
    """Keeps records in memory, or refuses them: the whole interface of an audit log."""

    full: bool = False
    head: Head = field(default_factory=lambda: Head(0, ""))
    records: list[AuditRecord] = field(default_factory=list)

    def append(self, record: AuditRecord, *, under_way: int = 1) -> asyncio.Future[None]:
        done = asyncio.get_running_loop().create_future()
        if self.full:
            done.set_exception(AuditUnavailable("full"))
        else:
            self.records.append(record)
            done.set_result(None)
        return done


class NoToken:
    async def call(self, request: Request[Reply], *, timeout: float) -> Reply:
        raise AssertionError("no request may come this far")


def desk(recorder: Recorder) -> Desk:
    token = NoToken()
    scanner = Scanner(token, {}, PROFILE, 1)
    rules = Rules("r" * 64, (), {}, Limits())
    return Desk(rules, scanner, token, recorder, Clock(), Counters(), Turns(1, 1))


async def attempt(recorder: Recorder, failure: BaseException | None) -> str:
    async with desk(recorder).operation(CALLER, "sign", key="release") as entry:
        entry.version = 3
        if failure is not None:
            raise failure
        return "the answer"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (None, "OK"),
        (KeyNotFound("x"), "KEY_NOT_FOUND"),
        (asyncio.CancelledError(), "CANCELLED"),
        (ZeroDivisionError(), "INTERNAL"),
    ],
)
def test_every_way_out_leaves_one_record(failure: BaseException | None, code: str) -> None:
    recorder = Recorder()
    if failure is None:
        assert asyncio.run(attempt(recorder, None)) == "the answer"
    else:
        with pytest.raises(type(failure)):
            asyncio.run(attempt(recorder, failure))
    (record,) = recorder.records
    assert (record.result, record.key, record.version) == (code, "release", 3)


def test_no_answer_without_a_record() -> None:
    with pytest.raises(AuditUnavailable):
        asyncio.run(attempt(Recorder(full=True), None))


@pytest.mark.parametrize(
    "context",
    [
        {"k": "v" * 1025},
        {"k": "\u00fc" * 600},
        {"k" * 129: ""},
        {f"{n}": "" for n in range(65)},
        {f"{n}": "v" * 1000 for n in range(9)},
    ],
    ids=["value", "value in UTF-8", "key", "pairs", "total"],
)
def test_an_oversized_context_does_not_fill_the_journal(context: dict[str, str]) -> None:
    recorder = Recorder()

    async def scenario() -> None:
        async with desk(recorder).operation(CALLER, "generate", key="k" * 9999, context=context):
            pass

    asyncio.run(scenario())
    assert recorder.records[0].context == {}
    assert len(recorder.records[0].key) == 64


def test_items_are_recorded_by_digest_and_result() -> None:
    recorder = Recorder()

    async def scenario() -> None:
        async with desk(recorder).operation(CALLER, "sign") as entry:
            entry.note_items([b"", b"abc"], [b"signature", Fault("DIGEST_LENGTH", "secret text")])

    asyncio.run(scenario())
    assert recorder.records[0].items == [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855:OK",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad:DIGEST_LENGTH",
    ]


@pytest.mark.parametrize(
    ("outcome", "failure", "written"),
    [
        (b"signature", None, [("OK", "OK")]),
        (Fault("TOKEN_UNAVAILABLE", ""), None, [("OK", "OK"), ("OK", "TOKEN_UNAVAILABLE")]),
        (b"", KeyNotFound("x"), [("OK", "OK"), ("KEY_NOT_FOUND", "OK")]),
        (b"", asyncio.CancelledError(), [("OK", "OK"), ("CANCELLED", "OK")]),
    ],
    ids=["as foretold", "an item fails", "the request fails", "the caller leaves"],
)
def test_a_record_written_ahead_is_corrected_by_a_second(
    outcome: bytes | Fault, failure: BaseException | None, written: list[tuple[str, str]]
) -> None:
    recorder = Recorder()

    async def scenario() -> None:
        with contextlib.suppress(KeyNotFound, asyncio.CancelledError):
            async with desk(recorder).operation(CALLER, "sign") as entry:
                entry.note_items([b"x"], [b"x"])
                entry.write_ahead()
                await asyncio.sleep(0)
                if failure is not None:
                    raise failure
                entry.note_items([b"x"], [outcome])

    asyncio.run(scenario())
    results = [(one.result, one.items[0].partition(":")[2]) for one in recorder.records]
    assert results == written
    assert len({one.request for one in recorder.records}) == 1


def test_no_answer_without_a_record_written_ahead() -> None:
    async def scenario() -> None:
        async with desk(Recorder(full=True)).operation(CALLER, "sign") as entry:
            entry.write_ahead()

    with pytest.raises(AuditUnavailable):
        asyncio.run(scenario())


@given(st.lists(st.one_of(st.integers(), st.just(Fault("X", "y"))), min_size=1, max_size=200))
def test_spread_keeps_every_item_in_its_place(inputs: list[int | Fault]) -> None:
    async def double(part: list[int]) -> list[int | Fault]:
        await asyncio.sleep(0)
        return [Fault("ODD", "") if value % 2 else value * 2 for value in part]

    outputs = asyncio.run(spread(inputs, double))
    assert outputs == [
        value if isinstance(value, Fault) else (Fault("ODD", "") if value % 2 else value * 2)
        for value in inputs
    ]


def test_spread_of_faults_alone_asks_nobody() -> None:
    async def nobody(part: list[bytes]) -> list[bytes | Fault]:
        raise AssertionError("asked")

    fault = Fault("X", "y")
    assert asyncio.run(spread([fault, fault], nobody)) == [fault, fault]
