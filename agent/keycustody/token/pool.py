"""The supervisor: worker processes that are logged in, and one queue of requests for them.

Rules:

* A request goes to the least loaded worker that is ready; few are in flight on a pipe, only to hide
  its latency. The queue is first in, first out, and bounded (`Overloaded`).
* A worker works through its pipe in order and counts what it begins. When it dies, the one request
  that it had begun is done once more elsewhere if it is idempotent, and fails (`TokenUnavailable`)
  if not. What it had not begun is simply sent again: workers that die together cost nobody a try.
* A worker whose module has to be initialised again is replaced by a new process. A worker that dies
  is started again, later each time it fails to come up. Starts and logins come one at a time, under
  the PIN guard.
* The pool asks its `PinSource` for each login and keeps no PIN.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import cast

import structlog

from keycustody import errors
from keycustody.errors import (
    DeadlineExceeded,
    InternalError,
    KeycustodyError,
    Overloaded,
    TokenUnavailable,
)
from keycustody.token.api import Failed, Login, Open, Reply, Request, Secret, TokenInfo
from keycustody.token.pin import PinSource
from keycustody.token.pin_guard import PinGuard
from keycustody.token.worker_process import Job, WorkerProcess

_log = structlog.get_logger(__name__)

#: Two: one in work, and one that need not cross the pipe when that is done.
_IN_FLIGHT = 2
#: How often one request may be begun.
_TRIES = 2
#: A worker must open the module and log in within this; hardware can be slow, not that slow.
_START_SECONDS = 60.0
#: First starts that fail in a way that may mend itself, before `start` raises.
_FIRST_STARTS = 3
#: Pauses before a worker is started again, in seconds: doubled with each failure in a row.
_PAUSE, _LONGEST_PAUSE = 0.05, 30.0
#: A worker that lived this long had come up for good.
_STEADY_SECONDS = 10.0

_GONE = "The token cannot be reached at the moment; the agent goes on trying."

#: What starting again does not mend.
_LASTING = (
    errors.ConfigInvalid,
    errors.FileUnusable,
    errors.InsecurePermissions,
    errors.ModuleUnusable,
    errors.PinGuarded,
    errors.PinIncorrect,
    errors.PinUnavailable,
    errors.TokenNotFound,
    errors.TokenNotProvisioned,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """One token, how to reach it, and how much may be asked of it at once."""

    module: str
    profile: str
    label: str | None = None
    serial: str | None = None
    #: The whole environment of the workers, besides PATH and LANG.
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: int = 2
    #: Requests that wait for a worker; more are refused.
    queue_limit: int = 10_000


#: Told of each answer: kind of request, seconds that it waited for a worker to begin with it, and
#: seconds that the worker took. It must be quick.
Observe = Callable[[str, float, float], None]


def unobserved(kind: str, queued: float, worked: float) -> None:
    """Nobody wants to know."""


class Pool:
    """A `keycustody.token.api.Token` of several processes. Use as an async context manager, or
    `start` and `close`."""

    def __init__(
        self,
        settings: PoolSettings,
        pin: PinSource,
        guard: PinGuard,
        observe: Observe = unobserved,
    ) -> None:
        self._settings = settings
        self._pin = pin
        self._guard = guard
        self._observe = observe
        self._queue: deque[Job] = deque()
        self._workers: list[WorkerProcess] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._starting = asyncio.Lock()
        self._closed = False
        self._info: TokenInfo | None = None
        self._trouble: KeycustodyError | None = None
        #: How often a worker was started again.
        self.restarts = 0

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return self._settings.workers

    @property
    def ready(self) -> int:
        """How many workers are open and logged in."""
        return sum(worker.ready for worker in self._workers)

    @property
    def room(self) -> int:
        """How many requests the workers take at once, when all are there."""
        return self.wanted * _IN_FLIGHT

    @property
    def supervised(self) -> bool:
        """Is every worker looked after: started again when it is gone?"""
        return bool(self._keepers) and not any(keeper.done() for keeper in self._keepers)

    @property
    def queued(self) -> int:
        """How many requests wait for a worker."""
        return len(self._queue)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers that are ready."""
        return tuple(worker.pid for worker in self._workers if worker.ready)

    @property
    def trouble(self) -> KeycustodyError | None:
        """Why the worker that was last started did not come up; None if it did."""
        return self._trouble

    @property
    def info(self) -> TokenInfo:
        """The token. `InternalError` before `start`."""
        if self._info is None:
            raise InternalError("The token was not opened yet.")
        return self._info

    async def __aenter__(self) -> "Pool":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the first worker; the others follow on their own, and so do replacements.

        Raises what keeps it from starting, if trying again would not mend it or did not:
        `ModuleUnusable`, `TokenNotFound`, `PinUnavailable`, `PinIncorrect`, `PinGuarded` and so on.
        Nothing is left running then.
        """
        first = await self._first()
        self._keepers = [
            asyncio.create_task(self._keep(first if number == 0 else None))
            for number in range(self.wanted)
        ]

    async def close(self) -> None:
        """End all workers. What was not answered fails with `TokenUnavailable`."""
        self._closed = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        # A keeper that was cancelled before it ran has ended nothing.
        await asyncio.gather(*(worker.end() for worker in self._workers))
        self._workers.clear()
        while self._queue:
            self._queue.popleft().fail(TokenUnavailable("The token is being closed."))

    async def call(self, request: Request[Reply], *, timeout: float) -> Reply:
        """Have the request done; see `keycustody.token.api.Token.call`."""
        if self._closed:
            raise TokenUnavailable("The token is closed.")
        if self._trouble is not None and not self.ready:
            raise TokenUnavailable(_GONE)
        if len(self._queue) >= self._settings.queue_limit:
            raise Overloaded("More requests wait for the token than the agent accepts.")
        loop = asyncio.get_running_loop()
        job = Job(request, loop.create_future())
        self._queue.append(job)
        self.dispatch()
        expiry = loop.call_later(timeout, self._expire, job)
        try:
            return cast("Reply", await job.answer)
        except asyncio.CancelledError:
            self._withdraw(job)
            raise
        finally:
            expiry.cancel()

    def answered(self, kind: str, queued: float, worked: float) -> None:
        """Take note of an answer; see `Observe`."""
        self._observe(kind, queued, worked)

    def renew(self) -> None:
        """Replace all workers: for a module that does not notice that its token came back. What
        they had begun is done again where that is possible."""
        for worker in self._workers:
            worker.retire()

    # -- requests --------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Send what waits to the workers that have room."""
        while self._queue:
            free = [w for w in self._workers if w.ready and len(w.unanswered) < _IN_FLIGHT]
            if not free:
                return
            job = self._queue.popleft()
            if not job.answer.done():
                min(free, key=lambda worker: len(worker.unanswered)).send(job)

    def again(self, job: Job, failed: Failed) -> None:
        """Have a request done once more that a worker began and failed for reasons of its own."""
        job.tries += 1
        if job.repeatable and job.tries < _TRIES:
            self._queue.appendleft(job)
        else:
            job.settle(failed)

    def left_behind(self, jobs: Sequence[Job], *, begun: bool) -> None:
        """Take back, in order, what a worker that is gone did not answer."""
        first, rest = (jobs[:1], jobs[1:]) if begun else ((), jobs)
        self._queue.extendleft(reversed(rest))
        for job in first:
            self.again(job, Failed(TokenUnavailable.code, "The token's worker ended during this."))
        self.dispatch()

    def _expire(self, job: Job) -> None:
        self._withdraw(job)
        if self.ready:
            job.fail(DeadlineExceeded("The token did not answer within the deadline."))
        else:
            job.fail(TokenUnavailable(_GONE))

    def _withdraw(self, job: Job) -> None:
        """Take a request out of the queue that nobody waits for. One that was sent stays sent."""
        if job in self._queue:
            self._queue.remove(job)

    # -- workers ---------------------------------------------------------------------------------

    async def _first(self) -> WorkerProcess:
        for number in range(1, _FIRST_STARTS + 1):
            try:
                return await self._bring_up()
            except _LASTING:
                raise
            except KeycustodyError:
                if number == _FIRST_STARTS:
                    raise
            await asyncio.sleep(_pause(number))
        raise AssertionError("unreachable")

    async def _keep(self, worker: WorkerProcess | None) -> None:
        """Keep one worker running for as long as the pool lives."""
        clock = asyncio.get_running_loop().time
        failures = 0
        while True:
            if worker is None:
                try:
                    worker = await self._bring_up()
                except KeycustodyError as error:
                    self._trouble = error
                    failures += 1
                    _log.warning("worker.start_failed", code=error.code, reason=error.message)
                    await asyncio.sleep(_pause(failures))
                    continue
            self._trouble = None
            since = clock()
            await worker.gone.wait()
            _log.warning("worker.ended", pid=worker.pid)
            self._workers.remove(worker)
            await worker.end()
            worker = None
            self.restarts += 1
            failures = 0 if clock() - since > _STEADY_SECONDS else failures + 1
            await asyncio.sleep(_pause(failures) if failures else 0)

    async def _bring_up(self) -> WorkerProcess:
        """Start a worker, open the token and log in. Raises errors of `keycustody.errors`, and
        leaves no process then."""
        async with self._starting:
            worker = WorkerProcess(self)
            try:
                async with asyncio.timeout(_START_SECONDS):
                    await worker.start(self._settings.environment)
                    await self._open(worker)
            except (OSError, TimeoutError) as error:  # the second is one of the first
                await worker.end()
                raise TokenUnavailable("A worker for the token did not come up.") from error
            except BaseException:
                await worker.end()
                raise
            worker.serve()
            self._workers.append(worker)
        self.dispatch()
        return worker

    async def _open(self, worker: WorkerProcess) -> None:
        settings = self._settings
        info = await worker.ask(
            Open(settings.module, settings.profile, settings.label, settings.serial)
        )
        pin = await asyncio.to_thread(self._pin)
        # Not every token has a serial number.
        async with self._guard.attempt(info.serial or info.label, pin):
            await worker.ask(Login(Secret(pin)))
        self._info = info


def _pause(failures: int) -> float:
    """Seconds until the next start: twice as long each time, and spread, so that many agents that
    lost one token do not come back to it at once."""
    longest = min(_LONGEST_PAUSE, _PAUSE * 2.0 ** min(failures, 32))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, hides nothing)
