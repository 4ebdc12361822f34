"""What the pool's queue does with what a worker leaves, without workers."""

import asyncio
from pathlib import Path

import pytest

from keycustody.errors import TokenUnavailable
from keycustody.token.api import CreateVersion, Request, Scan
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool, PoolSettings
from keycustody.token.worker_process import Job

CREATE = CreateVersion("k.v1", bytes(16), "sign", "EC_P256")


def _pool(folder: Path) -> Pool:
    settings = PoolSettings(module="none", profile="softhsm2", label="none")
    return Pool(settings, lambda: b"pin", PinGuard(folder))


def _jobs(*requests: Request[object]) -> list[Job]:
    loop = asyncio.get_running_loop()
    return [Job(request, loop.create_future()) for request in requests]


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_left_goes_to_the_front_in_its_order(tmp_path: Path, begun: bool) -> None:
    async def run() -> None:
        pool = _pool(tmp_path)
        waiting, *left = _jobs(*[Scan()] * 4)
        pool._queue.append(waiting)
        pool.left_behind(left, begun=begun)
        assert list(pool._queue) == [*left, waiting]
        assert [job.tries for job in left] == [int(begun), 0, 0]

    asyncio.run(run())


@pytest.mark.parametrize("begun", [False, True])
def test_a_change_is_sent_again_only_if_it_was_not_begun(tmp_path: Path, begun: bool) -> None:
    async def run() -> None:
        pool = _pool(tmp_path)
        (change,) = _jobs(CREATE)
        pool.left_behind([change], begun=begun)
        assert list(pool._queue) == ([] if begun else [change])
        if begun:
            assert isinstance(change.answer.exception(), TokenUnavailable)

    asyncio.run(run())


def test_an_outage_is_told_apart_from_a_slow_token(tmp_path: Path) -> None:
    async def run() -> None:
        pool = _pool(tmp_path)
        with pytest.raises(TokenUnavailable):
            await pool.call(Scan(), timeout=0.01)
        assert pool.queued == 0

    asyncio.run(run())
