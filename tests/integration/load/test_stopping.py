"""SIGTERM, restart and systemd: what was accepted is answered, and whoever watches is told."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import keycustody
from keycustody.errors import KeycustodyError
from tests.integration.command import running
from tests.integration.load.calls import Ended, channel, request, sign
from tests.integration.load.conftest import Loaded
from tests.integration.scraping import eventually, value

# Each test starts an agent of its own.
pytestmark = pytest.mark.slow

DRAIN_SECONDS = 5.0
ACCEPTED = "keycustody_accepted_requests"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


@asynccontextmanager
async def accepted(command: Loaded, number: int) -> AsyncIterator[list[asyncio.Task[Ended]]]:
    """So many calls that wait for a token that does not answer."""
    async with channel(command.socket("demo")) as opened:
        await sign(opened, request())
        command.hold_up()
        calls = [asyncio.create_task(sign(opened, request())) for _ in range(number)]
        await asyncio.to_thread(
            eventually,
            command,
            lambda found: value(found, ACCEPTED, principal="demo") >= number,
        )
        yield calls


def test_what_was_accepted_is_answered_and_health_says_first_that_nothing_more_is(
    prepared: Loaded,
) -> None:
    async def scenario(pid: int) -> None:
        async with (
            accepted(prepared, 40) as calls,
            channel(prepared.socket("quiet")) as watching,
        ):
            stub: Any = health_pb2_grpc.HealthStub(watching)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            os.kill(pid, signal.SIGTERM)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert not any(call.done() for call in calls)
            watch.cancel()
            prepared.let_go()
            assert {code for code, _ in await asyncio.gather(*calls)} == {"OK"}

    with running(prepared) as agent:
        run(scenario(agent.pid))
        assert agent.wait(timeout=DRAIN_SECONDS + 10) == 0
    prepared.ok("audit", "verify", "--config", prepared.config)


def test_a_drain_ends_in_time_and_says_what_may_be_tried_again(prepared: Loaded) -> None:
    async def scenario(pid: int) -> None:
        async with accepted(prepared, 40) as calls:
            os.kill(pid, signal.SIGTERM)
            assert {code for code, _ in await asyncio.gather(*calls)} == {"UNAVAILABLE"}
        prepared.let_go()

    with running(prepared) as agent:
        began = time.monotonic()
        run(scenario(agent.pid))
        assert agent.wait(timeout=30) == 0
        assert time.monotonic() - began < DRAIN_SECONDS + 15


def test_an_upgrade_by_restart_loses_no_call(prepared: Loaded) -> None:
    stop = threading.Event()
    failures: list[KeycustodyError] = []
    signed = [0] * 3

    def load(number: int) -> None:
        with keycustody.connect(socket=prepared.socket("demo"), patience=60) as agent:
            while not stop.is_set():
                try:
                    agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
                    signed[number] += 1
                except KeycustodyError as error:
                    failures.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    with running(prepared) as first:
        for thread in threads:
            thread.start()
        while min(signed) < 20:
            time.sleep(0.01)
        first.terminate()
        assert first.wait(timeout=DRAIN_SECONDS + 10) == 0
    before = list(signed)
    with running(prepared):
        while any(now < then + 20 for now, then in zip(signed, before, strict=True)):
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_systemd_is_told_all_of_it(prepared: Loaded, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)

        def told() -> str:
            return systemd.recv(4096).decode().partition("\n")[0]

        told_of = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        command = replace(prepared, environment=prepared.environment | told_of)
        with running(command) as agent:
            first = [told() for _ in range(4)]
            assert "READY=1" in first
            assert set(first) == {"READY=1", "WATCHDOG=1"}
            # An agent that hangs is not heard of.
            agent.send_signal(signal.SIGSTOP)
            systemd.settimeout(1)
            with suppress(TimeoutError):
                while told():  # what it had told before
                    pass
            with pytest.raises(TimeoutError):
                told()
            systemd.settimeout(20)
            agent.send_signal(signal.SIGCONT)
            agent.send_signal(signal.SIGHUP)
            while (now := told()) == "WATCHDOG=1":
                pass
            assert now == "RELOADING=1"
            while (now := told()) == "WATCHDOG=1":
                pass
            assert now == "READY=1"
            agent.terminate()
            while (now := told()) == "WATCHDOG=1":
                pass
            assert now == "STOPPING=1"
