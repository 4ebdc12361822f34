"""Starts workers and keeps as many as there should be: in place of one that ends, and before one
that has used too much does.

Rules:

* A worker that ends having been of use is followed at once; one that was of none, or that did not
  come up, after the breaker's pause. While the breaker is open, one at a time is started.
* Logins come one at a time, under the PIN guard, also when a worker that lost its login gets
  another one. The `PinSource` is asked for each, and no PIN is kept.
* Workers that are worn are replaced one at a time: the new one serves before the old one stops.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import structlog

from keycustody import errors
from keycustody.errors import InternalError, KeycustodyError, TokenUnavailable
from keycustody.token import profiles
from keycustody.token.api import Login, Open, Secret, TokenInfo
from keycustody.token.breaker import Breaker
from keycustody.token.ceilings import Ceilings
from keycustody.token.dispatch import Dispatch
from keycustody.token.pin import PinSource
from keycustody.token.pin_guard import PinGuard
from keycustody.token.watch import Limits, Watch
from keycustody.token.worker_process import WorkerProcess

if TYPE_CHECKING:
    from keycustody.token.pool import PoolSettings

_log = structlog.get_logger(__name__)

#: A worker must open the module and log in within this, a person who types the PIN included.
_START_SECONDS = 60.0
#: First starts that fail in a way that may mend itself, before `start` raises.
_FIRST_STARTS = 3
#: Workers that may be starting at once: their modules look at the token, and may miss each other.
_AT_ONCE = 2

#: Seconds until a worker that is worn is tried to be replaced again.
_RECYCLE_AGAIN = 10.0

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


class _Ended(TokenUnavailable):
    """A worker ended while it started, before the token had refused anything."""


class _Killed(_Ended):
    """So it did because somebody killed it."""


class Crew:
    """The workers of one pool."""

    def __init__(
        self,
        settings: "PoolSettings",
        pin: PinSource,
        guard: PinGuard,
        dispatch: Dispatch,
        breaker: Breaker,
        ceilings: Ceilings,
    ) -> None:
        self._settings = settings
        self._pin = pin
        self._guard = guard
        self._dispatch = dispatch
        self._breaker = breaker
        self._ceilings = ceilings
        self._keepers: list[asyncio.Task[None]] = []
        self._watches: dict[WorkerProcess, Watch] = {}
        self._starting = asyncio.Semaphore(_AT_ONCE)
        self._probing = asyncio.Lock()
        self._recycling = asyncio.Lock()
        self._token: TokenInfo | None = None
        #: Called when the token can be used again.
        self.recovered: Callable[[], None] = lambda: None
        #: How often a worker was started again, killed because it hung, and replaced by reason.
        self.restarts = 0
        self.hangs = 0
        self.recycles = {"objects": 0, "memory": 0}

    @property
    def info(self) -> TokenInfo:
        """The token. `InternalError` before `start`."""
        if self._token is None:
            raise InternalError("The token was not opened yet.")
        return self._token

    @property
    def complete(self) -> bool:
        """Is somebody there for each worker?"""
        return bool(self._keepers) and not any(keeper.done() for keeper in self._keepers)

    def watches(self) -> list[Watch]:
        """Return what there is to watch now."""
        return list(self._watches.values())

    async def start(self) -> None:
        """Start the first worker; the others follow on their own. See `Pool.start`."""
        first = await self._first()
        self._keepers = [
            asyncio.create_task(self._keep(first if number == 0 else None))
            for number in range(self._settings.workers)
        ]

    async def close(self) -> None:
        """End all workers."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        # A keeper that was cancelled before it ran has ended nothing.
        await asyncio.gather(*(self._dismiss(worker) for worker in tuple(self._watches)))

    async def _first(self) -> WorkerProcess:
        for number in range(1, _FIRST_STARTS + 1):
            try:
                worker = await self._bring_up()
            except _LASTING:
                raise
            except KeycustodyError as error:
                if number == _FIRST_STARTS:
                    raise
                await asyncio.sleep(self._breaker.failed(error))
            else:
                self._breaker.came_up()
                return worker
        raise AssertionError("unreachable")

    async def _keep(self, worker: WorkerProcess | None) -> None:
        """Keep one worker running for as long as the pool lives."""
        while True:
            if worker is None:
                worker = await self._started()
            worker = await self._tend(worker)

    async def _started(self) -> WorkerProcess:
        """Start a worker, as often as it takes."""
        while True:
            async with self._turn():
                try:
                    worker = await self._bring_up()
                except KeycustodyError as error:
                    _log.warning("worker.start_failed", code=error.code, reason=error.message)
                    if isinstance(error, _Killed):
                        continue
                    pause = self._failed(error)
                    if self._breaker.is_open:
                        await asyncio.sleep(pause)
                        continue
                else:
                    was_away = self._breaker.trouble is not None
                    self._breaker.came_up()
                    if was_away:
                        self.recovered()
                    return worker
            await asyncio.sleep(pause)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One at a time while the token is away: that one is the probe."""
        if self._breaker.is_open:
            async with self._probing:
                yield
        else:
            async with self._starting:
                yield

    def _forgive(self) -> None:
        if any(worker.useful for worker in self._dispatch.workers):
            self._breaker.was_useful()

    def _failed(self, error: KeycustodyError) -> float:
        self._forgive()
        pause = (
            self._breaker.crashed() if isinstance(error, _Ended) else self._breaker.failed(error)
        )
        if self._breaker.is_open:
            # What was queued before the failure was known is told, too.
            self._dispatch.refuse(self._breaker.refusal)
        return pause

    async def _tend(self, worker: WorkerProcess) -> WorkerProcess | None:
        """Look after a worker until it is gone or replaced; returns what replaced it."""
        while True:
            await worker.attention.wait()
            worker.attention.clear()
            if worker.gone.is_set():
                await self._buried(worker)
                return None
            if worker.logged_out:
                await self._log_in_again(worker)
            elif worker.worn:
                replacement = await self._replaced(worker)
                if replacement is not None:
                    return replacement

    async def _buried(self, worker: WorkerProcess) -> None:
        _log.warning("worker.ended", pid=worker.pid)
        await self._dismiss(worker)
        self.restarts += 1
        self._forgive()
        if worker.useful:
            self._breaker.was_useful()
        innocent = worker.useful or not worker.failed or worker.only_killed
        pause = 0.0 if innocent else self._breaker.crashed()
        if self._breaker.is_open:
            self._dispatch.refuse(self._breaker.refusal)
        await asyncio.sleep(pause)

    async def _log_in_again(self, worker: WorkerProcess) -> None:
        worker.suspend()
        try:
            await self._log_in(worker, self.info)
        except KeycustodyError as error:
            _log.warning("worker.login_failed", code=error.code, reason=error.message)
            worker.kill()
            await worker.gone.wait()  # nor is it asked again: that would be a login that broke off
            return
        _log.info("worker.logged_in_again", pid=worker.pid)
        worker.serve()
        self._dispatch.dispatch()

    async def _replaced(self, worker: WorkerProcess) -> WorkerProcess | None:
        """Start another worker in the place of one that is worn; None if that one must go on."""
        async with self._recycling:
            if worker.gone.is_set():
                return None
            try:
                replacement = await self._bring_up()
            except KeycustodyError as error:
                _log.warning("worker.start_failed", code=error.code, reason=error.message)
                asyncio.get_running_loop().call_later(_RECYCLE_AGAIN, worker.attention.set)
                return None
            self.recycles[worker.worn] += 1
            _log.info("worker.recycled", pid=worker.pid, reason=worker.worn)
            await worker.drain()
            await self._dismiss(worker)
            return replacement

    async def _dismiss(self, worker: WorkerProcess) -> None:
        worker.ready = False
        if worker in self._dispatch.workers:
            self._dispatch.workers.remove(worker)
        await worker.end()
        # Not if that was cancelled: `close` has then to see to it.
        self._watches.pop(worker, None)

    async def _bring_up(self) -> WorkerProcess:
        """Start a worker, open the token and log in. Raises errors of `keycustody.errors`, and
        leaves no process then."""
        settings = self._settings
        worker = WorkerProcess(self._dispatch)
        limits = Limits(settings.recycle_objects, settings.recycle_bytes)
        self._watches[worker] = Watch(worker, self._ceilings, limits, self._note_hang)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await worker.start(settings.environment)
                info = await worker.ask(
                    Open(settings.module, settings.profile, settings.label, settings.serial)
                )
                await self._log_in(worker, info)
        except (OSError, TimeoutError) as error:  # the second is one of the first
            await self._dismiss(worker)
            raise TokenUnavailable("A worker for the token did not come up.") from error
        except TokenUnavailable as error:
            ended = worker.gone.is_set() and not worker.hung
            await self._dismiss(worker)
            if ended:
                raise (_Killed if worker.only_killed else _Ended)(error.message) from error
            raise
        except BaseException:
            await self._dismiss(worker)
            raise
        self._token = info
        worker.serve()
        self._dispatch.workers.append(worker)
        self._dispatch.dispatch()
        return worker

    async def _log_in(self, worker: WorkerProcess, info: TokenInfo) -> None:
        pin = await asyncio.to_thread(self._pin)
        shown = profiles.load(self._settings.profile).shows_wrong_pins
        # Not every token has a serial number.
        async with self._guard.attempt(info.serial or info.label, pin, shown=shown) as attempt:
            try:
                await worker.ask(Login(Secret(pin), attempt.again))
            except TokenUnavailable:
                if not worker.gone.is_set():
                    attempt.counts = False  # an answer, and it was not that the PIN is wrong
                elif shown:
                    # A module that crashes or hangs for a while shall serve again after it.
                    await worker.end()
                    attempt.counts = worker.only_killed
                raise

    def _note_hang(self) -> None:
        self.hangs += 1
