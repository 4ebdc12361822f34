"""500 idle connections, 64 busy clients and 10,000 calls at once, within the limits that ship."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack

import grpc
import psutil
import pytest

from tests.integration.command import Command, prepare, running
from tests.integration.load.calls import burst, channel, request, sign
from tests.integration.load.conftest import TWO_PRINCIPALS

pytestmark = pytest.mark.slow

IDLE, BUSY, QUEUED = 500, 64, 10_000
#: What the agent may take for them: 20 KiB for a call that waits, 30 for a connection (both were
#: measured, with a little room), and that twice.
MEMORY = 2 * 1024 * (QUEUED * 20 + (IDLE + BUSY) * 30)
#: Only root may count the descriptors of a process that is not dumpable.
COUNTS = os.geteuid() == 0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """An agent with these limits."""
    command = prepare(tmp_path_factory.mktemp("many"), more="")
    command.config.write_text(TWO_PRINCIPALS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with running(command):
        yield command


class Busy:
    """Clients that call again and again, until they are told to stop."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.longest = 0.0
        self.stop = False

    async def work(self, opened: grpc.aio.Channel) -> None:
        while not self.stop:
            began = time.monotonic()
            self.ended[(await sign(opened, request()))[0]] += 1
            self.longest = max(self.longest, time.monotonic() - began)


def test_many_callers_are_served_in_bounded_memory(own: Command) -> None:
    async def scenario(agent: psutil.Process) -> None:
        before, descriptors = agent.memory_info().rss, agent.num_fds() if COUNTS else 0
        async with AsyncExitStack() as stack:

            async def connect(principal: str) -> grpc.aio.Channel:
                opened = await stack.enter_async_context(channel(own.socket(principal)))
                await asyncio.wait_for(opened.channel_ready(), 60)
                return opened

            for number in range(IDLE):
                await connect("demo" if number % 2 else "quiet")
            busy = Busy()
            clients = [await connect("quiet") for _ in range(BUSY)]
            tasks = [asyncio.create_task(busy.work(one)) for one in clients]
            ended = await burst([await connect("demo") for _ in range(20)], QUEUED, request())
            busy.stop = True
            await asyncio.gather(*tasks)
        # Another principal's calls: none is refused, and none waits for those 10,000.
        assert set(busy.ended) == {"OK"}
        assert busy.ended["OK"] > QUEUED / 20
        assert busy.longest < 10
        assert set(ended) <= {"OK", "OVERLOADED"}
        assert ended["OK"] >= QUEUED / 2
        assert agent.memory_info().rss - before < MEMORY
        deadline = time.monotonic() + 20
        while COUNTS and agent.num_fds() > descriptors:
            assert time.monotonic() < deadline, agent.num_fds()
            await asyncio.sleep(0.05)

    asyncio.run(scenario(psutil.Process(own.agent_pid())))
