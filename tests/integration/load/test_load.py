"""More than the agent takes: some are told to come back, and everybody else is served."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from prometheus_client import Metric

from tests.integration.command import Command
from tests.integration.load.calls import SIGN, burst, channel, request, sign
from tests.integration.load.conftest import Loaded
from tests.integration.scraping import eventually, metrics, value


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


@contextmanager
def held_up(command: Loaded) -> Iterator[None]:
    """The token answers nobody within the block."""
    command.hold_up()
    try:
        yield
    finally:
        command.let_go()


def count(found: dict[str, Metric], principal: str) -> float:
    """Accepted and not over; a principal is in the metrics from its first call on."""
    samples = found["keycustody_accepted_requests"].samples
    return sum(one.value for one in samples if one.labels == {"principal": principal})


async def until_accepted(command: Command, number: int) -> None:
    """Poll, without blocking the calls."""
    await asyncio.to_thread(eventually, command, lambda found: count(found, "demo") >= number)


def until_over(command: Command, principal: str) -> None:
    eventually(command, lambda found: not count(found, principal))


def test_beyond_the_bound_callers_are_told_at_once_when_to_come_back(loaded: Loaded) -> None:
    async def scenario() -> None:
        async with channel(loaded.socket("demo")) as opened:
            await sign(opened, request())
            with held_up(loaded):
                waiting = [asyncio.create_task(sign(opened, request())) for _ in range(300)]
                await until_accepted(loaded, 300)
                began = time.monotonic()
                refused = [await sign(opened, request()) for _ in range(20)]
                assert time.monotonic() - began < 5
            assert {code for code, _ in refused} == {"OVERLOADED"}
            assert all(pushback and 0.05 <= pushback <= 2 for _, pushback in refused)
            assert {code for code, _ in await asyncio.gather(*waiting)} == {"OK"}

    before = len(loaded.records())
    run(scenario())
    until_over(loaded, "demo")
    found = metrics(loaded)
    labels = {"principal": "demo", "limit": "queue_per_principal"}
    assert value(found, "keycustody_overloaded", **labels) == 20
    assert value(found, "keycustody_accepted_bytes", principal="demo") == 0
    # A refusal decided nothing and did nothing.
    assert [record["result"] for record in loaded.records()[before:]] == ["OK"] * 301


def test_who_comes_back_as_told_is_served(loaded: Loaded) -> None:
    async def scenario() -> None:
        opened = [channel(loaded.socket("demo"), retries=True) for _ in range(4)]
        assert await burst(opened, 1200, request()) == {"OK": 1200}
        for one in opened:
            await one.close()

    run(scenario())


def test_a_noisy_neighbour_starves_nobody(loaded: Loaded) -> None:
    """Batches of many signatures, more of them than are accepted, without a pause."""
    stop = threading.Event()

    def noise() -> None:
        async def scenario() -> None:
            opened = [channel(loaded.socket("demo")) for _ in range(4)]
            while not stop.is_set():
                await burst(opened, 300, request(100))
            for one in opened:
                await one.close()

        run(scenario())

    async def scenario() -> None:
        async with channel(loaded.socket("quiet")) as opened:
            await until_accepted(loaded, 100)
            took = []
            for _ in range(20):
                began = time.monotonic()
                assert (await sign(opened, request()))[0] == "OK"
                took.append(time.monotonic() - began)
            # 300 batches of 100 are seconds of this token's work; nobody else waits for them.
            assert sorted(took)[10] < 1.5, took

    noisy = threading.Thread(target=noise)
    noisy.start()
    try:
        run(scenario())
    finally:
        stop.set()
        noisy.join()
    until_over(loaded, "demo")


def test_calls_that_are_given_up_stop_costing(loaded: Loaded) -> None:
    async def scenario() -> None:
        async with channel(loaded.socket("demo")) as opened:
            await sign(opened, request())
            with held_up(loaded):
                waiting = [asyncio.create_task(sign(opened, request(64))) for _ in range(250)]
                await until_accepted(loaded, 250)
                for one in waiting:
                    one.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                # While the token still hangs.
                await asyncio.to_thread(until_over, loaded, "demo")
            assert (await sign(opened, request()))[0] == "OK"

    run(scenario())


def test_deadlines_hold_while_one_waits(loaded: Loaded) -> None:
    async def scenario() -> None:
        async with channel(loaded.socket("demo")) as opened:
            await sign(opened, request())
            with held_up(loaded):
                began = time.monotonic()
                ended = await asyncio.gather(*(sign(opened, request(), 0.5) for _ in range(40)))
                assert time.monotonic() - began < 5
            assert {code for code, _ in ended} == {"DEADLINE_EXCEEDED"}

    run(scenario())
    until_over(loaded, "demo")


def test_requests_that_never_come_are_ended_and_in_nobody_elses_way(loaded: Loaded) -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async def half_open(opened: Any) -> str:
        # On the wire a stream of requests is what a request is, and this one is never sent.
        call = opened.stream_unary(SIGN)(never(), timeout=30)
        return str((await call.code()).name)

    async def scenario() -> None:
        async with channel(loaded.socket("demo")) as bad, channel(loaded.socket("quiet")) as good:
            stuck = [asyncio.create_task(half_open(bad)) for _ in range(16)]
            await until_accepted(loaded, 16)
            for _ in range(10):
                assert (await sign(good, request()))[0] == "OK"
            # And the same principal's other calls when those are found out.
            assert (await sign(bad, request()))[0] == "OK"
            assert set(await asyncio.gather(*stuck)) == {"DEADLINE_EXCEEDED"}

    run(scenario())


def _closed(one: socket.socket) -> bool:
    """Has the agent closed it? What it says first is its settings."""
    one.settimeout(0.01)
    try:
        while one.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def test_connections_that_say_nothing_are_bounded_and_in_nobodys_way(loaded: Loaded) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(300)]
        for number, one in enumerate(opened):
            one.settimeout(5)
            one.connect(str(loaded.socket("quiet")))
            if number % 2:
                with suppress(BrokenPipeError):
                    one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n")
        with loaded.connect("demo") as agent:
            agent.sign("release", b"x")
        # limits.connections are 200.
        assert 100 <= sum(map(_closed, opened)) <= 300

    async def scenario() -> None:
        deadline = time.monotonic() + 20
        async with channel(loaded.socket("quiet")) as good:
            while (await sign(good, request(), 5))[0] != "OK":
                assert time.monotonic() < deadline

    run(scenario())


_READER = """
import asyncio, sys
from pathlib import Path
from tests.integration.load.calls import burst, channel, request
async def flood():
    opened = [channel(Path(sys.argv[1])) for _ in range(2)]
    print("begin", flush=True)
    while True:
        await burst(opened, 100, request(1024))
asyncio.run(flood())
"""


def test_clients_that_stop_reading_and_die_leave_nothing_behind(loaded: Loaded) -> None:
    path = loaded.socket("demo")
    flood = [sys.executable, "-c", _READER, str(path)]
    with subprocess.Popen(flood, stdout=subprocess.PIPE, env=os.environ) as client:
        try:
            assert client.stdout is not None
            client.stdout.readline()
            asyncio.run(until_accepted(loaded, 50))
            client.send_signal(signal.SIGSTOP)
            with loaded.connect("quiet") as agent:
                for _ in range(20):
                    agent.sign("release", b"x")
        finally:
            client.kill()
    until_over(loaded, "demo")
    found = metrics(loaded)
    assert value(found, "keycustody_accepted_bytes", principal="demo") == 0
    with loaded.connect("demo") as agent:
        agent.sign("release", b"x")
