"""Who is tested when, what counts as a failure, and what a failure stops."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.config import KeySettings
from keycustody.custody.health import Examiner, Guarded, Health
from keycustody.custody.keys.catalogue import Catalogue, build
from keycustody.errors import (
    DeadlineExceeded,
    KeycustodyError,
    KeyNotFound,
    KeyNotTrusted,
    KeyUnhealthy,
    Overloaded,
    TokenNotProvisioned,
    TokenUnavailable,
)
from keycustody.token.api import (
    Done,
    GenerateSessionKey,
    KeyRef,
    Outputs,
    Recipient,
    Reply,
    Request,
    Scan,
    SelfTest,
    Sign,
)
from tests.unit.custody import evidence
from tests.unit.custody.test_operation import Recorder

SIGNING = KeySettings(purpose="sign", algorithm="EC_P256")
SHOWN = build(
    evidence.scan(
        *evidence.version("release", 1, SIGNING), *evidence.version("release", 2, SIGNING)
    ),
    {"release": SIGNING},
    evidence.PROFILE,
)
ONE, TWO = (version.ref for version in SHOWN.keys["release"].versions)
REFS = [KeyRef(f"k{number}.v1", bytes(16), "sign", "EC_P256") for number in range(5)]


@dataclass
class Odd:
    """A token that answers the self-tests of one version as it is told, and all others well."""

    version: KeyRef
    answers: list[KeycustodyError | None]
    asked: list[str] = field(default_factory=list)

    async def call(self, request: Request[Reply], *, timeout: float) -> Any:
        if not isinstance(request, SelfTest):
            return Outputs([b"signature"])
        self.asked.append(request.key.label)
        if request.key == self.version and (answer := self.answers.pop(0)) is not None:
            raise answer
        return Done()


@dataclass
class Shown:
    """Scans that show a catalogue, or fail."""

    catalogue: Catalogue = SHOWN
    failure: KeycustodyError | None = None

    def latest(self) -> Catalogue:
        return SHOWN

    async def scan(self) -> Catalogue:
        if self.failure is not None:
            raise self.failure
        return self.catalogue


def examined(
    answers: list[KeycustodyError | None], scans: Shown, rounds: int = 1
) -> tuple[Health, Recorder, Odd]:
    health, recorder, token = Health(60), Recorder(), Odd(ONE, answers)
    examiner = Examiner(token, scans, health, recorder, lambda: "r" * 64)

    async def scenario() -> None:
        for _ in range(rounds):
            await examiner.round()

    asyncio.run(scenario())
    return health, recorder, token


def test_every_version_that_may_serve_is_tested_the_agents_own_too() -> None:
    health, recorder, token = examined([None], Shown())
    own = ["keycustody:delivery.v1", "keycustody:audit.v1"]
    assert token.asked == [*own, "release.v1", "release.v2"]
    assert health.failing == {}
    assert recorder.records == []
    assert set(health.verdicts) == set(token.asked)


def test_a_version_that_fails_twice_with_a_good_scan_between_is_refused_and_recorded() -> None:
    wrong = KeyNotTrusted("its objects do not belong together")
    health, recorder, _ = examined([wrong, wrong], Shown())
    assert health.failing == {"release.v1": "its objects do not belong together"}
    (record,) = recorder.records
    assert (record.principal, record.via, record.operation) == ("agent", "agent", "self-test")
    assert (record.key, record.version, record.result) == ("release", 1, "KEY_UNHEALTHY")


@pytest.mark.parametrize(
    ("answers", "scans"),
    [
        ([TokenUnavailable("x")], Shown(failure=TokenUnavailable("x"))),
        ([KeyNotFound("x")], Shown(failure=TokenNotProvisioned("no sentinel"))),
        ([KeyNotFound("x")], Shown(Catalogue({}, None))),
        ([KeyNotTrusted("x"), None], Shown()),
        ([DeadlineExceeded("x")], Shown()),
        ([Overloaded("x")], Shown()),
        ([KeyNotTrusted("x"), DeadlineExceeded("x")], Shown()),
    ],
    ids=["away", "empty", "version gone", "passes again", "slow", "busy", "slow again"],
)
def test_a_token_in_trouble_is_no_failed_key(
    answers: list[KeycustodyError | None], scans: Shown
) -> None:
    health, recorder, _ = examined(answers, scans)
    assert health.failing == {}
    assert recorder.records == []


def test_a_version_that_kills_its_worker_while_the_token_is_well_is_refused() -> None:
    gone = TokenUnavailable("The token's worker ended during this.")
    health, _, _ = examined([gone, gone], Shown())
    assert set(health.failing) == {"release.v1"}


def test_a_version_that_passes_later_serves_again_and_both_changes_are_recorded() -> None:
    wrong = KeyNotTrusted("x")
    health, recorder, _ = examined([wrong, wrong, wrong, wrong, None], Shown(), rounds=3)
    assert health.failing == {}
    assert [record.result for record in recorder.records] == ["KEY_UNHEALTHY", "OK"]


def test_a_change_that_cannot_be_recorded_now_is_recorded_later() -> None:
    recorder = Recorder(full=True)
    wrong = KeyNotTrusted("x")
    examiner = Examiner(Odd(ONE, [wrong] * 4), Shown(), Health(60), recorder, lambda: "r" * 64)

    async def scenario() -> None:
        await examiner.round()
        recorder.full = False
        await examiner.record_changes()
        await examiner.record_changes()

    asyncio.run(scenario())
    assert [record.result for record in recorder.records] == ["KEY_UNHEALTHY"]


def sealed(delivery: KeyRef) -> Request[Any]:
    return GenerateSessionKey(REFS[0], "k0", 1, 1, bytes(32), Recipient(bytes(65), delivery))


@pytest.mark.parametrize(
    "request_",
    [Sign(ONE, "ECDSA_SHA_256", [b"x"]), sealed(ONE)],
    ids=["its own", "as delivery key"],
)
def test_no_request_that_names_a_failed_version_reaches_the_token(request_: Request[Any]) -> None:
    health = Health(60)
    token = Guarded(Odd(ONE, []), health)
    asyncio.run(_ask(token, request_))
    health.note(ONE, 0, "x")
    with pytest.raises(KeyUnhealthy):
        asyncio.run(_ask(token, request_))
    assert asyncio.run(_ask(token, Sign(TWO, "ECDSA_SHA_256", [b"x"]))) == Outputs([b"signature"])
    asyncio.run(_ask(token, Scan()))


async def _ask(token: Guarded, request: Request[Reply]) -> Reply:
    return await token.call(request, timeout=1)


def test_hopeless_is_when_all_that_there_is_fails() -> None:
    health = Health(60)
    assert not health.hopeless([])
    health.note(ONE, 0, "x")
    assert health.hopeless([ONE])
    assert not health.hopeless([ONE, TWO])
    health.keep([TWO])
    assert health.failing == {}


def test_what_fails_is_due_sooner_and_what_is_new_at_once() -> None:
    health = Health(300)
    for ref in REFS[:3]:
        assert health.note(ref, 0, "") is False
    health.note(REFS[1], 0, "x")
    health.note_attempt(REFS[2], 0)
    assert health.due(REFS[:3], 9.9) is None
    assert health.due(REFS[:3], 10) == REFS[1]
    assert health.due(REFS[:4], 9.9) == REFS[3]
    assert health.due([REFS[0]], 299.9) is None
    assert health.due([REFS[0]], 300) == REFS[0]


@given(
    interval=st.floats(1, 100),
    outcomes=st.lists(st.tuples(st.sampled_from(REFS), st.booleans()), max_size=30),
)
def test_every_version_is_tested_at_least_once_an_interval(
    interval: float, outcomes: list[tuple[KeyRef, bool]]
) -> None:
    health = Health(interval)
    for ref, failed in outcomes:
        health.note(ref, 0.0, "x" if failed else "")
    seen = set()
    while (ref_due := health.due(REFS, interval)) is not None:
        seen.add(ref_due)
        health.note(ref_due, interval, "")
    assert seen == set(REFS)
