"""What only the asyncio client has: cancellation, event loops, threads for what blocks."""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import keycustody
from keycustody import aio, errors
from keycustody.client.aio_session import INLINE_BYTES
from tests.unit.client.agent_double import AgentDouble, serving

MIB = 1024 * 1024


class Held:
    """Holds every answer of one method until it is let go, and knows whether anybody waits."""

    def __init__(self, double: AgentDouble, method: str) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        double.tamper[method] = self.wait

    def wait(self, response: Any) -> Any:
        self.entered.set()
        self.go.wait(20)
        return response


@pytest.fixture
def held(double: AgentDouble) -> Iterator[Held]:
    holding = Held(double, "Sign")
    yield holding
    holding.go.set()


def sign(agent: aio.AsyncAgent) -> Awaitable[bytes]:
    return agent.sign("release", b"x", algorithm="ECDSA_SHA_256")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_a_cancelled_task_takes_its_call_with_it(
    socket: Path, double: AgentDouble, held: Held
) -> None:
    async def main() -> None:
        async with aio.connect(socket) as agent:
            task = asyncio.ensure_future(sign(agent))
            await until(held.entered.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: double.ended == ["Sign"])  # although its answer is still held
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await sign(agent)
            held.go.set()
            assert await sign(agent)

    asyncio.run(main())


def test_closing_ends_the_calls_of_other_tasks(socket: Path, held: Held) -> None:
    async def main() -> None:
        agent = aio.connect(socket)
        task = asyncio.ensure_future(sign(agent))
        await until(held.entered.is_set)
        await agent.close()
        await agent.close()
        with pytest.raises(errors.Cancelled, match="closed"):
            await task
        with pytest.raises(errors.AgentUnreachable, match="closed"):
            await agent.keys()
        assert repr(agent) == f"<keycustody.aio.AsyncAgent {socket} closed>"

    asyncio.run(main())


def test_another_event_loop(socket: Path) -> None:
    agent = aio.connect(socket)
    asyncio.run(agent.keys())
    with pytest.raises(errors.InvalidRequest, match="another event loop"):
        asyncio.run(agent.keys())


def test_tasks_that_miss_the_same_key_ask_once(double: AgentDouble, socket: Path) -> None:
    """Also when who asked, and one who waits, are cancelled."""
    held = Held(double, "UnwrapSessionKeys")

    async def main() -> None:
        async with aio.connect(socket) as agent:
            async with await agent.session("invoices") as session:
                box = await session.encrypt(b"x")
            tasks = [
                asyncio.ensure_future(agent.decrypt(box, key="invoices", context={}))
                for _ in range(20)
            ]
            await until(held.entered.is_set)
            tasks[0].cancel()  # the first asked
            tasks[7].cancel()
            await until(lambda: double.count("UnwrapSessionKeys") == 2)
            held.go.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert results.count(b"x") == 18
            assert double.count("UnwrapSessionKeys") == 2

    asyncio.run(main())


def test_large_messages_and_files_leave_the_loop_free(socket: Path, tmp_path: Path) -> None:
    """A ticker in the loop goes on while hundreds of megabytes are encrypted."""
    data = os.urandom(MIB) * 64
    (tmp_path / "plain").write_bytes(data)

    async def main() -> None:
        async with aio.connect(socket) as agent, await agent.session("invoices") as session:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.001)

            ticker = asyncio.ensure_future(tick())
            box = await session.encrypt(data)
            assert ticks > 1
            before = ticks
            assert await agent.decrypt(box, key="invoices", context={}) == data
            assert ticks > before + 1
            before = ticks
            await session.encrypt_file(tmp_path / "plain", tmp_path / "sealed")
            assert ticks > before + 1
            await agent.decrypt_file(
                tmp_path / "sealed", tmp_path / "back", key="invoices", context={}
            )
            assert (tmp_path / "back").read_bytes() == data
            ticker.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1])
def test_sizes_around_the_threshold(socket: Path, size: int) -> None:
    async def main() -> None:
        async with aio.connect(socket) as agent, await agent.session("invoices") as session:
            box = await session.encrypt(bytes(size))
            assert await agent.decrypt(box, key="invoices", context={}) == bytes(size)
            with pytest.raises(errors.DecryptionFailed):
                await agent.decrypt(box + b"x", key="invoices", context={})

    asyncio.run(main())


@pytest.mark.parametrize("direction", ["encrypt", "decrypt"])
def test_a_cancelled_transfer_leaves_no_target(
    socket: Path, tmp_path: Path, direction: str
) -> None:
    (tmp_path / "plain").write_bytes(bytes(64 * MIB))

    async def main() -> None:
        async with aio.connect(socket) as agent, await agent.session("invoices") as session:
            await session.encrypt_file(tmp_path / "plain", tmp_path / "sealed")
            begun = threading.Event()

            def progress(done: int, total: int | None) -> None:
                begun.set()
                time.sleep(0.002)

            if direction == "encrypt":
                transfer = session.encrypt_file(
                    tmp_path / "plain", tmp_path / "out", progress=progress
                )
            else:
                transfer = agent.decrypt_file(
                    tmp_path / "sealed",
                    tmp_path / "out",
                    key="invoices",
                    context={},
                    progress=progress,
                )
            task = asyncio.ensure_future(transfer)
            await until(begun.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The thread has ended: nothing appears later.
            assert await asyncio.to_thread(names, tmp_path) == {"agent.sock", "plain", "sealed"}

    asyncio.run(main())


def test_many_transfers_while_the_agent_is_looked_for(double: AgentDouble, tmp_path: Path) -> None:
    """More than the loop has threads, each of which waits for a call."""
    (tmp_path / "plain").write_bytes(b"x")
    path = tmp_path / "agent.sock"

    async def main() -> None:
        async with aio.connect(path, patience=8.0) as agent:
            with serving(double, path):
                double.lease = (0, 0, 0)
                session = await agent.session("invoices")
            again = serving(double, path)
            threading.Timer(0.3, again.__enter__).start()
            async with asyncio.timeout(20):
                await asyncio.gather(
                    *(
                        session.encrypt_file(tmp_path / "plain", tmp_path / f"out{number}")
                        for number in range(60)
                    )
                )
            again.__exit__(None, None, None)

    asyncio.run(main())
    assert len(list(tmp_path.glob("out*"))) == 60


def test_a_restart_under_load_leaves_calls_on_the_old_channel_alone(
    double: AgentDouble, tmp_path: Path
) -> None:
    path = tmp_path / "agent.sock"
    held = Held(double, "Sign")

    async def main() -> None:
        async with aio.connect(path) as agent:
            with serving(double, path) as old:
                task = asyncio.ensure_future(sign(agent))
                await until(held.entered.is_set)
                path.rename(tmp_path / "moved.sock")
                with serving(AgentDouble(), path):
                    assert await agent.keys()  # over a new channel
                    held.go.set()
                    assert await task
                del old

    asyncio.run(main())


def test_there_is_no_private_key(socket: Path) -> None:
    public = {name for name in dir(keycustody.Agent) if not name.startswith("_")}
    offered = {name for name in dir(aio.AsyncAgent) if not name.startswith("_")}
    assert public - offered == {"private_key"}
    assert offered <= public
    session = {name for name in dir(keycustody.Session) if not name.startswith("_")}
    assert session == {name for name in dir(aio.AsyncSession) if not name.startswith("_")}


def test_operators(socket: Path) -> None:
    async def main() -> None:
        async with aio.connect(socket) as agent:
            assert (await agent.status()).agent_version == "double"
            with pytest.raises(errors.Unimplemented):
                await agent.key_changes.rotate("release")
            with suppress(errors.Unimplemented):
                await agent.reload()

    asyncio.run(main())
