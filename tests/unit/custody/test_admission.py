"""What is accepted is bounded in number and in bytes, for one principal and for all."""

import asyncio
from contextlib import AbstractContextManager

import pytest

from keycustody.config import Limits
from keycustody.custody.admission import Admission, Place
from keycustody.errors import Overloaded

KIB = 1024
LIMITS = Limits.model_validate(
    {
        "queue": 5,
        "queue_per_principal": 3,
        "request_bytes": 64 * KIB,
        "bytes_in_flight": 160 * KIB,
        "bytes_per_principal": 100 * KIB,
    }
)


def admission() -> Admission:
    return Admission(LIMITS, lambda _seconds: None)


def refusal() -> AbstractContextManager[pytest.ExceptionInfo[Overloaded]]:
    return pytest.raises(Overloaded)


def test_each_principal_has_so_many_and_all_together_too() -> None:
    gate = admission()
    places = [gate.enter("a") for _ in range(3)]
    with refusal() as caught:
        gate.enter("a")
    assert "limits.queue_per_principal" in caught.value.message
    assert caught.value.retry_after is not None
    assert 0.05 <= caught.value.retry_after <= 2
    places += [gate.enter("b") for _ in range(2)]
    with refusal() as caught:
        gate.enter("c")
    assert "limits.queue)" in caught.value.message
    assert gate.refused == {("a", "queue_per_principal"): 1, ("c", "queue"): 1}
    for place in places:
        place.leave()
    assert gate.total.requests == 0
    gate.enter("a").leave()


def held(gate: Admission, principal: str, number: int) -> Place:
    place = gate.enter(principal)
    place.hold(number)
    return place


def test_bytes_count_until_the_answer_was_taken() -> None:
    gate = admission()
    first = held(gate, "a", 60 * KIB)
    other = gate.enter("a")
    with refusal() as caught:
        other.hold(60 * KIB)
    assert "limits.bytes_per_principal" in caught.value.message
    held(gate, "b", 64 * KIB)
    third = gate.enter("c")
    with refusal() as caught:
        third.hold(64 * KIB)
    assert "limits.bytes_in_flight" in caught.value.message
    first.answer(10)
    other.hold(60 * KIB)
    first.leave()
    other.leave()
    third.leave()
    assert gate.loads["a"].bytes == gate.loads["c"].bytes == 0
    assert gate.total.bytes == gate.loads["b"].bytes == 64 * KIB


def test_limits_that_hold_no_request_are_refused() -> None:
    with pytest.raises(ValueError, match="at least request_bytes"):
        Limits.model_validate({"bytes_per_principal": 2**20})


def test_a_turn_is_given_back() -> None:
    async def scenario() -> None:
        gate = admission()
        for _ in range(200):
            place = gate.enter("a")
            await place.turn(1)
            place.rest()
            place.leave()

    asyncio.run(scenario())
