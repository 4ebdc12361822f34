"""What the queue does with what a worker leaves, without workers."""

import asyncio

import pytest

from keycustody.errors import Overloaded, TokenUnavailable
from keycustody.token.api import CreateVersion, Failed, Request, Scan
from keycustody.token.ceilings import Ceilings
from keycustody.token.dispatch import Dispatch
from keycustody.token.worker_process import Job

CREATE = CreateVersion("k.v1", bytes(16), "sign", "EC_P256")


def _dispatch(limit: int = 10) -> Dispatch:
    return Dispatch(limit, Ceilings(2.0), lambda *_: None)


def _jobs(*requests: Request[object]) -> list[Job]:
    loop = asyncio.get_running_loop()
    return [Job(request, loop.create_future()) for request in requests]


@pytest.mark.parametrize("begun", [0, 1, 3])
def test_what_is_left_goes_to_the_front_in_its_order(begun: int) -> None:
    async def run() -> None:
        dispatch = _dispatch()
        waiting, *left = _jobs(*[Scan()] * 4)
        dispatch.submit(waiting)
        dispatch.left_behind(left, begun=begun)
        assert list(dispatch._queue) == [*left, waiting]
        assert [job.tries for job in left] == [1] * begun + [0] * (3 - begun)

    asyncio.run(run())


@pytest.mark.parametrize("begun", [0, 1])
def test_a_change_is_sent_again_only_if_it_was_not_begun(begun: int) -> None:
    async def run() -> None:
        dispatch = _dispatch()
        (change,) = _jobs(CREATE)
        dispatch.left_behind([change], begun=begun)
        assert list(dispatch._queue) == ([] if begun else [change])
        if begun:
            assert isinstance(change.answer.exception(), TokenUnavailable)

    asyncio.run(run())


def test_a_request_is_begun_twice_and_no_more() -> None:
    async def run() -> None:
        dispatch = _dispatch()
        (job,) = _jobs(Scan())
        failed = Failed("TOKEN_UNAVAILABLE", "It failed.")
        dispatch.again(job, failed)
        assert list(dispatch._queue) == [job]
        dispatch._queue.clear()
        dispatch.again(job, failed)
        assert list(dispatch._queue) == []
        assert isinstance(job.answer.exception(), TokenUnavailable)

    asyncio.run(run())


def test_an_outage_is_told_apart_from_a_slow_token() -> None:
    async def run() -> None:
        dispatch = _dispatch()
        (job,) = _jobs(Scan())
        dispatch.submit(job)
        dispatch.expire(job)
        assert isinstance(job.answer.exception(), TokenUnavailable)
        assert dispatch.queued == 0

    asyncio.run(run())


def test_everything_that_waits_can_be_refused_and_no_more_than_the_limit_waits() -> None:
    async def run() -> None:
        dispatch = _dispatch(limit=2)
        *jobs, late = _jobs(*[Scan()] * 3)
        for job in jobs:
            dispatch.submit(job)
        with pytest.raises(Overloaded):
            dispatch.submit(late)
        dispatch.refuse(lambda: TokenUnavailable("gone"))
        assert [type(job.answer.exception()) for job in jobs] == [TokenUnavailable] * 2
        assert dispatch.queued == 0

    asyncio.run(run())
