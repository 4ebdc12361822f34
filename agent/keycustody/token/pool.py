"""The supervisor: worker processes that are logged in, and one queue of requests for them.

A request is worth its answer, not its worker: `dispatch` decides which worker gets it and what
becomes of it when that one fails, `watch` ends workers that hang, `crew` starts others in their
place, and `breaker` answers at once while no worker can be started. `remedies` says what is done
about which error, `ceilings` how long an attempt may take (docs/adr/0025-time.md).
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import cast

from keycustody.errors import KeycustodyError, TokenUnavailable
from keycustody.token import watch
from keycustody.token.api import Reply, Request, TokenInfo
from keycustody.token.breaker import Breaker
from keycustody.token.ceilings import Ceilings
from keycustody.token.crew import Crew
from keycustody.token.dispatch import IN_FLIGHT, Dispatch, Observe
from keycustody.token.pin import PinSource
from keycustody.token.pin_guard import PinGuard
from keycustody.token.worker_process import Job

__all__ = ["Observe", "Pool", "PoolSettings", "unobserved"]


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
    #: Seconds that the token may take for something quick.
    attempt_seconds: float = 2.0
    #: What a worker may have made, and may occupy, before another one takes its place.
    recycle_objects: int = 1_000_000
    recycle_bytes: int = 256 * 2**20


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
        ceilings = Ceilings(settings.attempt_seconds)
        self._settings = settings
        self._dispatch = Dispatch(settings.queue_limit, ceilings, observe)
        self._breaker = Breaker(lambda: self._dispatch.ready)
        self._crew = Crew(settings, pin, guard, self._dispatch, self._breaker, ceilings)
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return self._settings.workers

    @property
    def ready(self) -> int:
        """How many workers are open and logged in."""
        return self._dispatch.ready

    @property
    def room(self) -> int:
        """How many requests the workers take at once, when all are there."""
        return self.wanted * IN_FLIGHT

    @property
    def supervised(self) -> bool:
        """Is every worker looked after: watched, and started again when it is gone?"""
        watched = self._watching is not None and not self._watching.done()
        return watched and self._crew.complete

    @property
    def queued(self) -> int:
        """How many requests wait for a worker."""
        return self._dispatch.queued

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers that are ready."""
        return tuple(worker.pid for worker in self._dispatch.workers if worker.ready)

    @property
    def trouble(self) -> KeycustodyError | None:
        """Why the worker that was last started did not come up; None if it did."""
        return self._breaker.trouble

    @property
    def broken(self) -> bool:
        """Is the circuit breaker open, so that calls are refused at once?"""
        return self._breaker.is_open

    @property
    def openings(self) -> int:
        """How often the circuit breaker opened."""
        return self._breaker.openings

    @property
    def restarts(self) -> int:
        """How often a worker that ended was started again."""
        return self._crew.restarts

    @property
    def hangs(self) -> int:
        """How often a worker was killed because it did not answer."""
        return self._crew.hangs

    @property
    def recycles(self) -> Mapping[str, int]:
        """How often a worker was replaced because it had used too much, by what."""
        return self._crew.recycles

    @property
    def info(self) -> TokenInfo:
        """The token. `InternalError` before `start`."""
        return self._crew.info

    def on_recovery(self, recovered: Callable[[], None]) -> None:
        """Call this whenever the token can be used again after it could not."""
        self._crew.recovered = recovered

    def renew(self) -> None:
        """Replace all workers: for a module that does not notice that its token came back. What
        they had begun is done again where that is possible."""
        for worker in tuple(self._dispatch.workers):
            worker.kill()

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
        self._watching = asyncio.create_task(watch.run(self._crew.watches))
        try:
            await self._crew.start()
        except BaseException:
            self._watching.cancel()
            raise

    async def close(self) -> None:
        """End all workers. What was not answered fails with `TokenUnavailable`."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        await self._crew.close()
        self._dispatch.refuse(lambda: TokenUnavailable("The token is being closed."))

    async def call(self, request: Request[Reply], *, timeout: float) -> Reply:
        """Have the request done; see `keycustody.token.api.Token.call`."""
        if self._closed:
            raise TokenUnavailable("The token is closed.")
        if self._breaker.is_open:
            raise self._breaker.refusal()
        loop = asyncio.get_running_loop()
        job = Job(request, loop.create_future())
        self._dispatch.submit(job)
        expiry = loop.call_later(timeout, self._dispatch.expire, job)
        try:
            return cast("Reply", await job.answer)
        except asyncio.CancelledError:
            self._dispatch.withdraw(job)
            raise
        finally:
            expiry.cancel()
