"""The asyncio driver: `sync` with `await`. It runs the same flows, over one grpc.aio channel.

A driver belongs to the event loop that uses it first. A task that is cancelled takes its call with
it. What would block the loop runs in a thread (`in_thread`): files, large messages, TLS handshakes
of our own.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, Final

import grpc
from grpc import aio

from keycustody.client import channel
from keycustody.client.calls import Beside, Call, Flow, R, Step, Wait
from keycustody.client.channel import Route
from keycustody.client.files import Progress
from keycustody.client.process import Home
from keycustody.client.retry import Attempts, Timing
from keycustody.errors import AgentUnreachable, Cancelled, InvalidRequest, KeycustodyError

#: A channel that was replaced is closed when its last call ended; each has a deadline.
_CALLS_END_SECONDS: Final = 24 * 3600.0
#: A cancelled task waits so long for its thread, which ends at its next block.
_PATIENCE_SECONDS: Final = 5.0


class AioConnection:
    """One channel to one agent, made anew when the agent is another. For one event loop."""

    def __init__(self, route: Route) -> None:
        self.path = route.path
        self.closed = False
        self._home = Home()
        self._route = route
        self.loop: asyncio.AbstractEventLoop | None = None
        self._looking = asyncio.Lock()
        # Of its own: the loop's threads may all be busy with files that wait for a call.
        self._looks = ThreadPoolExecutor(1, "keycustody-look")
        self._channel: aio.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def here(self) -> bool:
        """Whether this process made the channel, or nobody did yet."""
        return self._home.here

    def check_home(self) -> None:
        """Raise unless this is the process, and the event loop, that used it first."""
        self._home.check()
        loop = asyncio.get_running_loop()
        if self.loop is None:
            self.loop = loop
        elif self.loop is not loop:
            raise InvalidRequest(
                "This agent connection belongs to another event loop; call connect() in this one."
            )

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled. Idempotent."""
        if self.loop is not None:
            self.check_home()
        self.closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
        self._looks.shutdown(wait=False)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` in a task that ends with the connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def send(self, call: Call[Any], attempts: Attempts) -> Any:
        """Send a call once; return its response."""
        method = await self._method(call, attempts)
        try:
            return await method(call.request, timeout=attempts.left)
        except grpc.RpcError as failed:
            raise channel.error_of(failed, self._route, closed=self.closed) from failed
        except aio.UsageError as error:  # the channel was closed by another task just now
            raise AgentUnreachable("This connection was closed; call connect() again.") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self.closed and task is not None and not task.cancelling():
                raise Cancelled("The connection was closed during the call.") from error
            raise

    async def _method(self, call: Call[Any], attempts: Attempts) -> Any:
        self._check_open()
        if not self._route.holds() or self._channel is None:
            try:
                async with asyncio.timeout(attempts.left):
                    await self._renew(attempts)
            except TimeoutError as error:
                raise attempts.too_late() from error
            self._check_open()
        method = self._methods.get(call.path)
        if method is None:
            assert self._channel is not None
            method = self._methods[call.path] = self._channel.unary_unary(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response.FromString,
            )
        return method

    async def _renew(self, attempts: Attempts) -> None:
        async with self._looking:
            if self._route.holds() and self._channel is not None:
                return  # another task did
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._looks, self._route.look, attempts.left)
            self._check_open()
            old, self._channel = self._channel, self._route.channel(aio)
            self._methods = {}
            if old is not None:
                self.start(_retired(old))

    def _check_open(self) -> None:
        if self.closed:
            raise AgentUnreachable("This connection was closed; call connect() for another.")


async def _retired(old: aio.Channel) -> None:
    """Close a channel when calls of other tasks that are under way have ended."""
    try:
        await old.close(grace=_CALLS_END_SECONDS)
    except asyncio.CancelledError:
        await old.close()
        raise


class AioDriver:
    """Runs flows over a connection."""

    def __init__(self, connection: AioConnection, timing: Timing) -> None:
        self.connection = connection
        self._timing = timing

    async def run(self, flow: Flow[R]) -> R:
        """Run a flow to its end."""
        self.connection.check_home()
        return await self._finish(flow, None)

    async def in_thread(self, work: Callable[["Bridge"], R], bridge: "Bridge | None" = None) -> R:
        """Run what blocks in a thread; it asks the agent through the bridge that it is given.

        If this task is cancelled, the bridge and all that looks at its `stopped` ends the work.
        """
        self.connection.check_home()
        bridge = bridge or Bridge(self)
        thread = asyncio.ensure_future(asyncio.to_thread(work, bridge))
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            bridge.stopped.set()
            # Nobody else asks what became of it.
            thread.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait({thread}, timeout=_PATIENCE_SECONDS)
            raise

    async def _finish(self, flow: Flow[R], step: Step | None) -> R:
        """Run a flow from `step`, or from its start."""
        try:
            if step is None:
                step = next(flow)
            while True:
                try:
                    answer = await self._take(step)
                except KeycustodyError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result
        except UnicodeEncodeError as error:
            raise InvalidRequest("A name or text holds what UTF-8 cannot carry.") from error
        finally:
            # Cancelled in the middle: what the flow had claimed is given up; nobody waits on.
            flow.close()

    async def _take(self, step: Step) -> Any:
        match step:
            case Wait(future):
                # Shielded: cancelled is who waits, and not what everybody waits for.
                return await asyncio.shield(asyncio.wrap_future(future))
            case Beside(flow):
                return self._start(flow)
            case call:
                return call.result(await self._call(call))

    async def _call(self, call: Call[Any]) -> Any:
        attempts = Attempts(call, self._timing, time.monotonic)
        while True:
            try:
                return await self.connection.send(call, attempts)
            except KeycustodyError as error:
                pause = attempts.pause(error)
            await asyncio.sleep(pause)

    def _start(self, flow: Flow[None]) -> None:
        task = self.connection.start(self._finish(flow, next(flow)))
        # A task that is cancelled before it ran does not come to its `finally`.
        task.add_done_callback(lambda _: flow.close())


class Bridge:
    """A `session.Runner` for a thread: runs flows in the loop of the task that waits for it."""

    def __init__(self, driver: AioDriver) -> None:
        self.stopped = Event()
        self._driver = driver

    def run(self, flow: Flow[R]) -> R:
        """Run a flow to its end."""
        self.check()
        loop = self._driver.connection.loop
        assert loop is not None  # in_thread checked it
        return asyncio.run_coroutine_threadsafe(self._driver.run(flow), loop).result()

    def watched(self, progress: Progress | None) -> Progress:
        """A progress that ends the work once nobody waits for it."""

        def watching(done: int, total: int | None) -> None:
            self.check()
            if progress is not None:
                progress(done, total)

        return watching

    def check(self) -> None:
        """Raise `Cancelled` once nobody waits for the work any more."""
        if self.stopped.is_set():
            raise Cancelled("The task was cancelled.")
