"""Requests that do not come are given up; whatever else ends a call does so as ever."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from keycustody.errors import DeadlineExceeded, InvalidRequest
from keycustody.service.arrivals import Arrivals


class Call:
    """A call whose request comes when it is told."""

    def __init__(self, *came: object) -> None:
        self._coming: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        for data in came:
            self._coming.set_result(data)

    async def read(self) -> object:
        return await self._coming


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_what_is_there_is_read() -> None:
    async def scenario() -> None:
        arrivals = Arrivals()
        for _ in range(3):
            assert await arrivals.read(Call(b"x"), 5) == b"x"

    run(scenario())


def test_what_does_not_come_is_given_up_and_nothing_else() -> None:
    async def scenario() -> None:
        arrivals = Arrivals()
        patient = asyncio.create_task(arrivals.read(Call(), 60))
        slow = [asyncio.create_task(arrivals.read(Call(), 0.05)) for _ in range(3)]
        assert all(
            isinstance(ended, DeadlineExceeded)
            for ended in await asyncio.gather(*slow, return_exceptions=True)
        )
        # And again, after all of those.
        with pytest.raises(DeadlineExceeded):
            await arrivals.read(Call(), 0.05)
        assert not patient.done()
        patient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await patient

    run(scenario())


def test_a_call_that_ends_without_a_request_asked_for_nothing() -> None:
    async def scenario() -> None:
        with pytest.raises(InvalidRequest):
            await Arrivals().read(Call(None), 5)

    run(scenario())
